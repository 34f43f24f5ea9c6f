//! [`Disk`]: a small disk of a test's own, which can be full, read-only, or without power.

use std::path::Path;
use std::process::{Command, Stdio};

/// A mounted disk. It goes when it is dropped.
pub(super) struct Disk(tempfile::TempDir);

impl Disk {
    /// A disk of memory.
    pub(super) fn of_memory(size: &str) -> Disk {
        Disk::mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// A disk in a file, which holds what was written to the disk and not what was only meant to be.
    pub(super) fn of_file(image: &Path) -> Disk {
        // Nothing but a flush writes to it within a test.
        Disk::mount(&["-o", "loop,commit=300", image.to_str().unwrap()])
    }

    /// Makes a file for [`Disk::of_file`].
    pub(super) fn format(image: &Path) {
        std::fs::File::create(image)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let status = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(image)
            .stdout(Stdio::null())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "NOT RUN: a file system is made with mkfs.ext4; install e2fsprogs"
        );
    }

    fn mount(arguments: &[&str]) -> Disk {
        let disk = Disk(tempfile::tempdir().unwrap());
        disk.run(arguments);
        disk
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn remount(&self, options: &str) {
        self.run(&["-o", &format!("remount,{options}")]);
    }

    fn run(&self, arguments: &[&str]) {
        let status = Command::new("mount")
            .args(arguments)
            .arg(self.0.path())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "NOT RUN: mounting a disk needs root; run the tests as root or in a container"
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}
