//! [`Examination`]: what can be found out about a file of queues without changing anything in it.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{fault, schema};
use crate::broker::BrokerError;

/// The most complaints that are worth showing.
const MOST: u32 = 5;

/// What was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The file, as an absolute path.
    pub path: PathBuf,
    /// None: there is no such file yet.
    pub content: Option<Content>,
}

/// What is in a file that is a queue.
#[derive(Clone, Debug)]
pub struct Content {
    /// What a check of its structure complains of; none when it is sound.
    pub complaints: Vec<String>,
    /// The size of the file, in bytes.
    pub size: u64,
    /// The size of the write-ahead log beside it, in bytes.
    pub log_size: u64,
}

impl Examination {
    /// Examines a file. Blocks for as long as reading it takes.
    ///
    /// # Errors
    /// `Refused` when it cannot be a queue, or is damaged beyond being read.
    pub fn of(path: &Path) -> Result<Examination, BrokerError> {
        let path = schema::resolve(path)?;
        let content = match std::fs::metadata(&path) {
            Ok(metadata) => Some(Content {
                complaints: complaints(&path)?,
                size: metadata.len(),
                log_size: log_size(&path),
            }),
            Err(_) => None,
        };
        Ok(Examination { path, content })
    }
}

fn complaints(path: &Path) -> Result<Vec<String>, BrokerError> {
    schema::refuse_foreign(path)?;
    let connection = schema::open_reader(path)?;
    check(&connection).map_err(|error| fault::explain(path, &error))
}

fn check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // Closing it must not write to a file that may be damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let mut said = connection.prepare(&format!("PRAGMA quick_check({MOST})"))?;
    let said = said.query_map([], |row| row.get::<_, String>(0))?;
    said.filter(|line| !matches!(line, Ok(text) if text == "ok"))
        .collect()
}

fn log_size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // No log is one of no size.
    std::fs::metadata(log).map_or(0, |metadata| metadata.len())
}
