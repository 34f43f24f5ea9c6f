//! [`Presence`]: how processes on one file know of each other: who lives, and when to look again.
//!
//! Each process has a small file of its own in a directory beside the database, named by an id that
//! is never used again. The lock on it says that the process lives: the system ends it with the
//! process, however that died, and keeps it while the process is merely stopped. A write to it is
//! the bell: something was committed that others may wait for.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use uuid::Uuid;

/// This process among those that use the file. Dropping it takes the process off the list.
pub(super) struct Presence {
    id: String,
    file: File,
    path: PathBuf,
    directory: PathBuf,
}

/// A process that is gone, held fast so that no second one buries it at the same time.
pub(super) struct Departed {
    /// Its id.
    pub(super) id: String,
    /// Its file and our lock on it. None: there is no such file.
    file: Option<(PathBuf, File)>,
}

impl Presence {
    /// Puts this process on the list of those that use `database`.
    pub(super) fn announce(database: &Path) -> io::Result<Presence> {
        let mut directory = database.as_os_str().to_owned();
        directory.push("-owners");
        let directory = PathBuf::from(directory);
        std::fs::create_dir_all(&directory)?;
        loop {
            let id = Uuid::now_v7().simple().to_string();
            let path = directory.join(&id);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)?;
            match file.try_lock() {
                // Between its making and the lock, another process may have taken the file for one
                // of the dead and removed it. Then this name is spent.
                Ok(()) if path.exists() => {
                    return Ok(Presence {
                        id,
                        file,
                        path,
                        directory,
                    });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Puts this process on the list again if somebody took its file away: others would go on taking it
    /// for dead, and each task that it claims for one of a worker that crashed.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        if !self.directory.exists() {
            std::fs::create_dir(&self.directory)?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.path)?;
        file.try_lock()?;
        self.file = file;
        Ok(())
    }

    /// Never used by another process, before or after.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Tells the other processes to look again.
    pub(super) fn ring(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(b"!")
    }

    /// Calls `heard` whenever another process rings, on a thread of the watcher's, until the
    /// watcher is dropped.
    pub(super) fn listen(
        &self,
        heard: impl Fn() + Send + 'static,
    ) -> notify::Result<RecommendedWatcher> {
        let own = self.path.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let is_bell = event.is_ok_and(|event| {
                    matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)))
                        && event.paths.iter().any(|path| *path != own)
                });
                if is_bell {
                    heard();
                }
            })?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    /// Those that are gone, of the processes that have a file and of the `named`, which may have
    /// lost theirs.
    pub(super) fn departed(&self, named: Vec<String>) -> io::Result<Vec<Departed>> {
        let mut ids = named;
        for entry in std::fs::read_dir(&self.directory)? {
            // What is no id is not ours to look at.
            if let Ok(name) = entry?.file_name().into_string()
                && Uuid::try_parse(&name).is_ok()
            {
                ids.push(name);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let others = ids.into_iter().filter(|id| *id != self.id);
        others
            .filter_map(|id| self.examine(id).transpose())
            .collect()
    }

    fn examine(&self, id: String) -> io::Result<Option<Departed>> {
        // A name in the database that is no id was not made here, and must not lead to a file.
        if Uuid::try_parse(&id).is_err() {
            return Ok(Some(Departed { id, file: None }));
        }
        let path = self.directory.join(&id);
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Departed { id, file: None }));
            }
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {
                let file = Some((path, file));
                Ok(Some(Departed { id, file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Left behind, it is found unlocked by the next process and removed there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Departed {
    /// Takes it off the list, once nothing in the database is in its name.
    pub(super) fn bury(self) {
        if let Some((path, _locked)) = self.file {
            // Another process may have been faster.
            let _ = std::fs::remove_file(path);
        }
    }
}
