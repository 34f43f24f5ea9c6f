//! One look at the plugin directory: which files there are, by what the file system tells of them. It
//! opens none of them, so that nothing in the directory can make it wait.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::name::PluginName;
use crate::units::show_size;

/// The largest manifest, in bytes.
pub(super) const MAX_MANIFEST: u64 = 64 << 10;
/// The largest signature, in bytes. Minisign's have four lines.
pub(super) const MAX_SIGNATURE: u64 = 16 << 10;

/// What is in the directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files that are, or could become, plugins.
    pub(super) plugins: BTreeMap<PluginName, Files>,
    /// Files that look like plugins and can never be one, each with the reason.
    pub(super) strays: BTreeMap<PathBuf, String>,
}

/// The files of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// `thumb.wasm`
    pub(super) wasm: Option<File>,
    /// `thumb.toml`
    pub(super) manifest: Option<File>,
    /// `thumb.wasm.minisig`
    pub(super) signature: Option<File>,
}

/// A file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Where it is, symlinks not resolved.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) state: FileState,
}

/// What the file system tells of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// A file that can be opened without waiting.
    Regular(Stamp),
    /// Nothing that can be read, and why.
    Unusable(String),
}

/// Tells one content of a file from the next, without reading it.
///
/// Device and inode are those of the file that symlinks lead to, so a link that points elsewhere is
/// another stamp; the change time tells of writes that set the modification time back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Looks at every name in the directory. Dot files are not for us: editors, copying tools and
/// Kubernetes (`..data`) keep their work in progress there.
///
/// # Errors
/// When the directory itself cannot be listed.
pub(super) fn look(directory: &Path, max_size: u64) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let (Some(stem), Some(extension)) = (path.file_stem(), path.extension()) else {
            continue;
        };
        let extension = extension.to_string_lossy();
        let name = stem.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        match extension.as_ref() {
            "wasm" => match name.parse::<PluginName>() {
                Ok(name) => {
                    let state = state_of(&path, max_size);
                    found.plugins.entry(name).or_default().wasm = Some(File { path, state });
                }
                Err(error) => {
                    found.strays.insert(path, error.to_string());
                }
            },
            "toml" => {
                // Where the name is not allowed, the `.wasm` beside it says so.
                if let Ok(name) = name.parse::<PluginName>() {
                    let state = state_of(&path, MAX_MANIFEST);
                    found.plugins.entry(name).or_default().manifest = Some(File { path, state });
                }
            }
            "minisig" => {
                let signed = name.strip_suffix(".wasm");
                if let Some(name) = signed.and_then(|name| name.parse::<PluginName>().ok()) {
                    let state = state_of(&path, MAX_SIGNATURE);
                    found.plugins.entry(name).or_default().signature = Some(File { path, state });
                }
            }
            "cwasm" => {
                found.strays.insert(path, NATIVE_CODE.to_owned());
            }
            other if other.eq_ignore_ascii_case("wasm") => {
                let reason = format!("the name ends in .{other}; rename it to {name}.wasm");
                found.strays.insert(path, reason);
            }
            _ => {}
        }
    }
    Ok(found)
}

const NATIVE_CODE: &str = "a .cwasm file is native code, which no sandbox holds; \
                           put the .wasm that it was made from here instead";

/// Follows symlinks. A special file is refused by its type: opening one could wait for ever.
pub(super) fn state_of(path: &Path, max_size: u64) -> FileState {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return FileState::Unusable(unreachable_because(path, &error)),
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        if metadata.size() > max_size {
            return FileState::Unusable(format!(
                "{} are over the limit of {}",
                show_size(metadata.size()),
                show_size(max_size)
            ));
        }
        return FileState::Regular(Stamp::of(&metadata));
    }
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    FileState::Unusable(format!("it is {what}; only regular files can be plugins"))
}

fn unreachable_because(path: &Path, error: &io::Error) -> String {
    match fs::read_link(path) {
        Ok(target) => format!(
            "it is a symlink to {}, which cannot be reached: {error}",
            target.display()
        ),
        Err(_) => format!("cannot be reached: {error}"),
    }
}
