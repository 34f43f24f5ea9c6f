//! The file itself: what makes it ours, its tables, and how an older one is brought up to date.
//!
//! A file that is not ours, that is damaged or that a newer scutwork made is refused and left as it
//! was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::clock::Clock;
use super::{Durability, fault};
use crate::broker::BrokerError;

/// `scut` in ASCII, in the header of every file that is ours.
const APPLICATION_ID: i32 = 0x7363_7574;

/// Each entry leads from the version of its index to the next. A published entry is never edited.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("pause.sql"),
    include_str!("clock.sql"),
    include_str!("suspects.sql"),
];

/// How long a connection tries for a lock that others hold before it says so.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits between two tries: less than a commit takes, so that no process is starved by
/// one that commits without a pause.
const LOCK_RETRY: Duration = Duration::from_micros(500);

/// The write-ahead log is cut back to this many bytes once a burst is over.
const LOG_LIMIT: i64 = 64 << 20;

/// The path by which every process knows the file, whatever directory it was named from.
///
/// # Errors
/// `Refused` when nothing could be there: no such directory, or a directory itself.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, BrokerError> {
    let refused = |error| Err(BrokerError::Refused(error));
    if path.is_dir() {
        return refused(anyhow!(
            "{} is a directory; name a file in it",
            path.display()
        ));
    }
    if let Ok(whole) = path.canonicalize() {
        return Ok(whole);
    }
    let Some(name) = path.file_name() else {
        return refused(anyhow!(
            "{:?} names no file; write sqlite:PATH",
            path.display().to_string()
        ));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match directory.canonicalize() {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) => refused(anyhow!(
            "directory {} for the queue cannot be used: {error}; create it first",
            directory.display()
        )),
    }
}

/// Opens the file for writing, making or migrating it first, and reads its clock.
///
/// # Errors
/// `Refused` when the file is not a queue of ours or cannot be written; it is then as it was.
pub(super) fn open(
    path: &Path,
    durability: Durability,
) -> Result<(Connection, Clock), BrokerError> {
    let broken = |error: rusqlite::Error| fault::explain(path, &error);
    refuse_foreign(path)?;
    let mut connection = Connection::open_with_flags(path, flags()).map_err(broken)?;
    wait_for_locks(&mut connection).map_err(broken)?;
    // Until the file is known to be sound, closing it must not write to it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(broken)?;
    let version = migrate(path, &mut connection)?;
    debug_assert_eq!(version, MIGRATIONS.len());
    touch_tables(&connection).map_err(broken)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(broken)?;
    configure(&connection, durability).map_err(broken)?;
    let clock = Clock::open(&mut connection).map_err(broken)?;
    Ok((connection, clock))
}

/// Opens the file once more, for reading alone.
pub(super) fn open_reader(path: &Path) -> Result<Connection, BrokerError> {
    let open = || {
        let mut connection = Connection::open_with_flags(path, flags())?;
        wait_for_locks(&mut connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| fault::explain(path, &error))
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Looks at the header of a file that is there already, through an immutable connection: that takes
/// no lock and makes no file beside it. Reading it with plain file calls would end every lock that
/// this process has on it (POSIX locks go with the first descriptor closed).
pub(super) fn refuse_foreign(path: &Path) -> Result<(), BrokerError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => {}
        // Absent or empty: ours to fill. Whatever else is wrong, opening it says.
        _ => return Ok(()),
    }
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let probe = Connection::open_with_flags(immutable_uri(path), flags)?;
        // A process that died while it moved the log into the file leaves one whose header tells of
        // pages that are still in the log. To the probe, which does not read the log, that is damage,
        // unless it may find the tables odd.
        probe.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
        probe.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
    };
    match read() {
        Ok(APPLICATION_ID) => Ok(()),
        Ok(_) => Err(BrokerError::Refused(anyhow!(
            "{} is a database of another program; name another file",
            path.display()
        ))),
        Err(error) => Err(fault::explain(path, &error)),
    }
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// SQLite's own waiting grows to a tenth of a second a try, which is an age beside a commit.
fn wait_for_locks(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(|tries: i32| {
        let tries = u32::try_from(tries).unwrap_or(u32::MAX);
        std::thread::sleep(LOCK_RETRY);
        LOCK_RETRY.saturating_mul(tries) < LOCK_PATIENCE
    }))
}

/// Brings the tables up to date in one transaction, and returns the version that they have then.
///
/// That happens before the file is set to write-ahead logging, so the header of a file that is not
/// empty always says whose it is.
fn migrate(path: &Path, connection: &mut Connection) -> Result<usize, BrokerError> {
    let broken = |error: rusqlite::Error| fault::explain(path, &error);
    if version(connection).map_err(broken)? == MIGRATIONS.len() {
        return Ok(MIGRATIONS.len());
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(broken)?;
    // Read again under the lock: another process may have been faster.
    let found = version(&transaction).map_err(broken)?;
    let Some(steps) = MIGRATIONS.get(found..) else {
        return Err(BrokerError::Refused(anyhow!(
            "{} was made by a newer scutwork (file version {found}, this one knows {}); update scutwork",
            path.display(),
            MIGRATIONS.len()
        )));
    };
    for step in steps {
        transaction.execute_batch(step).map_err(broken)?;
    }
    let done = found + steps.len();
    transaction
        .pragma_update(None, "application_id", APPLICATION_ID)
        .and_then(|()| transaction.pragma_update(None, "user_version", done as i64))
        .and_then(|()| transaction.commit())
        .map_err(broken)?;
    Ok(done)
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Reads the first page of every table, so that a damaged file is found now and not by the first task.
fn touch_tables(connection: &Connection) -> rusqlite::Result<()> {
    for table in [
        "queue", "message", "waiting", "held", "dead", "reply", "clock",
    ] {
        connection
            .prepare(&format!("SELECT * FROM {table} LIMIT 1"))?
            .exists([])?;
    }
    Ok(())
}

fn configure(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    set_write_ahead_logging(connection)?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Where flushing to the disk does not yet mean flushing the disk's own cache (macOS); elsewhere
    // it changes nothing.
    let is_full = durability == Durability::Full;
    connection.pragma_update(None, "fullfsync", is_full)?;
    connection.pragma_update(None, "checkpoint_fullfsync", is_full)?;
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Otherwise a statement is prepared anew whenever a value in it changes that might change its plan,
    // which is at every claim.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// The change needs the file for itself and does not wait for it, unlike everything else.
fn set_write_ahead_logging(connection: &Connection) -> rusqlite::Result<()> {
    let started = std::time::Instant::now();
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && started.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(LOCK_RETRY);
            }
            other => return other.map(drop),
        }
    }
}
