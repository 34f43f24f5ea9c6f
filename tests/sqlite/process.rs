//! Other processes on the same file, which a test may kill, and what they leave written.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What a child process of these tests is to do: this binary is run again with one test's name, and
/// that test finds its part here.
const ROLE: &str = "SCUTWORK_TEST_ROLE";

/// The folder that a child works in.
const FOLDER: &str = "SCUTWORK_TEST_FOLDER";

/// Another process, killed when dropped.
pub(super) struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    /// Runs `test` of this binary once more, in the part of `role`.
    pub(super) fn start(test: &str, role: &str, folder: &Path) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// Waits until it says this.
    pub(super) fn await_line(&mut self, what: &str) {
        for line in &mut self.lines {
            if line.unwrap().contains(what) {
                return;
            }
        }
        panic!("the process ended without saying {what:?}");
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part that this process has, if it is a child.
pub(super) fn role() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    Some((role, PathBuf::from(std::env::var_os(FOLDER)?)))
}

pub(super) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{line}").unwrap();
    stdout.flush().unwrap();
}

/// Lines that outlive the process that wrote them, whenever it is killed.
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn open(folder: &Path, name: &str) -> Journal {
        let path = folder.join(name);
        Journal(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap(),
        )
    }

    pub(super) fn note(&mut self, ids: &[String]) {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        self.0.write_all(lines.as_bytes()).unwrap();
    }

    /// Every line, as often as it was written.
    pub(super) fn read(folder: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
