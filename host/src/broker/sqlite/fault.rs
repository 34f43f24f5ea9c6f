//! What the database's errors mean to whoever runs the queue, in one sentence with the fix.

use std::path::Path;

use anyhow::anyhow;
use rusqlite::{Error, ErrorCode};

use crate::broker::BrokerError;

/// Turns an error of the database into the broker's: what a retry may cure is `Unavailable`.
pub(super) fn explain(path: &Path, error: &Error) -> BrokerError {
    let path = path.display();
    if matches!(error, Error::InvalidPath(_)) {
        return BrokerError::Unavailable(anyhow!(
            "{path} was removed, moved or replaced while it was in use; put it back, or restart what uses it"
        ));
    }
    let code = error.sqlite_error_code();
    match code {
        Some(ErrorCode::DiskFull) => BrokerError::Unavailable(anyhow!(
            "no space left on the disk of {path}; free some, the queue is intact"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            BrokerError::Unavailable(anyhow!(
                "another process has kept {path} locked for too long; look for one that is stopped"
            ))
        }
        Some(ErrorCode::SystemIoFailure) => BrokerError::Unavailable(anyhow!(
            "reading or writing {path} failed: {error}; check the disk and its free space"
        )),
        Some(ErrorCode::NotADatabase) => BrokerError::Refused(anyhow!(
            "{path} is not a queue of scutwork; name another file"
        )),
        Some(ErrorCode::DatabaseCorrupt) => BrokerError::Refused(anyhow!(
            "{path} is damaged ({error}); restore it from a backup, or move it away to start anew"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            BrokerError::Refused(anyhow!(
                "{path} cannot be written ({error}); grant this user the right to write it and its directory"
            ))
        }
        Some(ErrorCode::TooBig) => BrokerError::Refused(anyhow!(
            "a message is too large for {path}; send a reference to the data"
        )),
        _ => BrokerError::Refused(anyhow!("{path} cannot be used as a queue: {error}")),
    }
}

/// Whether the same call may work a moment later, without anybody doing anything.
pub(super) fn is_passing(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
