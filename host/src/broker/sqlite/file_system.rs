//! Which file systems a queue's file should not lie on: those that other machines write to, too.

use std::path::Path;

/// The numbers by which Linux knows them (statfs(2)).
const NETWORK: [(u32, &str); 12] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x786f_4256, "VirtualBox's shared folders"),
];

/// What is wrong with the place of a queue's file, if it is on a file system that is shared between
/// machines.
pub fn warning(directory: &Path) -> Option<String> {
    let found = rustix::fs::statfs(directory).ok()?;
    // Where the number has a sign, its lower half is the number still.
    let name = network(found.f_type as u32)?;
    Some(format!(
        "{} is on {name}, whose locks may not hold between machines",
        directory.display()
    ))
}

fn network(kind: u32) -> Option<&'static str> {
    let found = NETWORK.iter().find(|(number, _)| *number == kind);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_known_by_their_numbers_and_local_ones_are_not() {
        for (kind, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("CIFS")),
            (0xef53, None),      // ext4
            (0x5846_5342, None), // XFS
            (0x9123_683e, None), // Btrfs
            (0x0102_1994, None), // tmpfs
            (0x794c_7630, None), // overlayfs
        ] {
            assert_eq!(network(kind), name, "{kind:#x}");
        }
    }

    #[test]
    fn a_place_that_is_not_there_warns_of_nothing() {
        assert_eq!(warning(Path::new("/nothing/here")), None);
    }
}
