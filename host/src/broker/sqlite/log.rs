//! [`Log`]: the file that commits are written to first, and when what is in it survives a loss of power.
//!
//! The database would wait for the disk within each commit. Kept apart, the wait is only for those who are
//! told that something lasts; what a commit merely hands out is on its way meanwhile.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rusqlite::{Connection, ffi};

use super::Durability;

/// The write-ahead log of one connection.
pub(super) struct Log {
    /// None: nobody waits for the disk.
    path: Option<PathBuf>,
    /// Opened at the first use: until something is committed, there need not be one. It stays the same file
    /// for as long as a connection is open.
    file: Option<File>,
    /// The disk has failed us, and may not know any more what it did not write.
    is_in_doubt: bool,
}

impl Log {
    /// Takes the wait for the disk out of the commits of a connection, if there is one. Those that keep the
    /// file sound stay in it.
    ///
    /// # Errors
    /// When the database does not take that.
    pub(super) fn of(connection: &Connection, durability: Durability) -> rusqlite::Result<Log> {
        let path = match durability {
            Durability::Full => connection.path().map(|path| format!("{path}-wal").into()),
            Durability::Normal => None,
        };
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Log {
            path,
            file: None,
            is_in_doubt: false,
        })
    }

    /// Sees that everything that was committed is on the disk, if that is wanted. Blocks for as long as the
    /// disk takes.
    ///
    /// # Errors
    /// When the disk fails. What was committed is there, but may be gone after a loss of power.
    pub(super) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        if self.is_in_doubt {
            // To ask for the same bytes once more may be answered as if they were written. So they are
            // written anew, to where they go in the end.
            checkpoint(connection)?;
            self.is_in_doubt = false;
        }
        let flushed = match &self.file {
            Some(file) => file.sync_data(),
            None => File::open(path).and_then(|file| self.file.insert(file).sync_data()),
        };
        flushed.map_err(|error| {
            self.is_in_doubt = true;
            failure(&error)
        })
    }
}

/// Moves everything from the log into the file, and waits until it is on the disk.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let is_busy = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))?;
    if is_busy {
        return Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_BUSY),
            None,
        ));
    }
    Ok(())
}

/// The same that the database says when it waits for the disk itself.
fn failure(error: &io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        _ => ffi::SQLITE_IOERR_FSYNC,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;

    fn in_the_file_itself(path: &std::path::Path) -> i64 {
        let uri = format!("file:{}?immutable=1", path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let file = Connection::open_with_flags(uri, flags).unwrap();
        let count = file.query_row("SELECT count(*) FROM row", [], |row| row.get(0));
        count.unwrap()
    }

    #[test]
    fn what_the_disk_may_have_forgotten_is_written_anew_before_anything_else_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let connection = Connection::open(&path).unwrap();
        let made = "PRAGMA journal_mode = WAL; CREATE TABLE row (id); PRAGMA wal_checkpoint;";
        connection.execute_batch(made).unwrap();
        let mut log = Log::of(&connection, Durability::Full).unwrap();
        let write = || {
            connection
                .execute("INSERT INTO row VALUES (1)", [])
                .unwrap()
        };
        write();
        log.flush(&connection).unwrap();
        assert_eq!(in_the_file_itself(&path), 0);
        // It cannot be flushed.
        let disk = log.file.replace(File::open("/dev/null").unwrap());
        write();
        assert!(log.flush(&connection).is_err());
        log.file = disk;
        log.flush(&connection).unwrap();
        assert_eq!(in_the_file_itself(&path), 2);
        write();
        log.flush(&connection).unwrap();
        assert_eq!(in_the_file_itself(&path), 2);
    }

    #[test]
    fn without_full_durability_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("file.db")).unwrap();
        let mut log = Log::of(&connection, Durability::Normal).unwrap();
        log.flush(&connection).unwrap();
        assert!(log.file.is_none());
    }
}
