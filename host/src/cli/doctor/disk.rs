//! Whether the disk under the embedded queue has room, and locks that hold.

use std::path::Path;

use super::finding::Finding;
use crate::broker::sqlite::file_system;
use crate::units::show_size;

const CHECK: &str = "disk";

/// Less than this is full before anybody looks again, in bytes.
const LITTLE: u64 = 256 << 20;

pub(super) fn check(directory: &Path) -> Vec<Finding> {
    let at = directory.display();
    let found = match rustix::fs::statfs(directory) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::fail(
                CHECK,
                format!("the file system of {at} cannot be looked at: {error}"),
                "check that the directory can be read",
            )];
        }
    };
    let free = found
        .f_bavail
        .saturating_mul(u64::try_from(found.f_bsize).unwrap_or_default());
    let shown = show_size(free >> 20 << 20);
    let room = if free < LITTLE {
        Finding::fail(
            CHECK,
            format!("{shown} are free in {at}, and a full disk stops the queue"),
            "free some space",
        )
    } else {
        Finding::ok(CHECK, format!("{shown} are free in {at}"))
    };
    let warning = file_system::warning(directory).map(|warning| {
        Finding::warn(
            CHECK,
            warning,
            "keep the file on a local disk, and use RabbitMQ for more than one machine",
        )
    });
    std::iter::once(room).chain(warning).collect()
}
