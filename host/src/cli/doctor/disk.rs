//! Whether the disk under the embedded queue has room, and locks that hold.

use std::path::Path;

use super::finding::Finding;
use crate::units::show_size;

const CHECK: &str = "disk";

/// Less than this is full before anybody looks again, in bytes.
const LITTLE: u64 = 256 << 20;

/// The numbers by which Linux knows file systems that other machines write to (statfs(2)).
const NETWORK: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
];

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
    // Some machines have the number with a sign, and then its upper half is of the sign alone.
    let kind = found.f_type as u64 & 0xffff_ffff;
    let network = NETWORK.iter().find(|(number, _)| *number == kind);
    let warning = network.map(|(_, name)| {
        Finding::warn(
            CHECK,
            format!("{at} is on {name}, whose locks may not hold between machines"),
            "keep the file on a local disk, and use RabbitMQ for more than one machine",
        )
    });
    std::iter::once(room).chain(warning).collect()
}
