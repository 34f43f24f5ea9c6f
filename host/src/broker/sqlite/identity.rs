//! [`Identity`]: which file a path meant when it was opened, so that nothing is confirmed on one that
//! was since removed, moved or replaced. SQLite goes on writing to such a file, and nobody finds it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path and the file that it stood for.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    path: PathBuf,
    device: u64,
    file: u64,
}

impl Identity {
    /// The file that is there now.
    pub(super) fn of(path: &Path) -> io::Result<Identity> {
        let metadata = std::fs::metadata(path)?;
        Ok(Identity {
            path: path.to_owned(),
            device: metadata.dev(),
            file: metadata.ino(),
        })
    }

    /// # Errors
    /// `InvalidPath` when the path stands for another file now, or for none.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(now) if now.dev() == self.device && now.ino() == self.file => Ok(()),
            Ok(_) | Err(_) => Err(rusqlite::Error::InvalidPath(self.path.clone())),
        }
    }
}
