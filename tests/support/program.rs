//! The program as a user starts it: in a folder of its own, with its output caught.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use scutwork::plugin::embedded;

/// Longer than anything takes here, even on a busy machine. Reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How many lines of a command are shown when a test fails: of its last, and of its warnings before.
const LAST_WORDS: usize = 40;

/// A folder to start the program in, with a plugin directory. Removed when dropped.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    environment: Vec<(&'static str, OsString)>,
}

/// How a command that ended did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// A command that goes on; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        Place {
            folder,
            environment: Vec::new(),
        }
    }

    /// Sets a variable for every command from here on.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Puts a built plugin into the plugin directory, with a manifest.
    pub(crate) fn plugin(&self, name: &str, manifest: &str) -> &Self {
        let wasm = match name {
            "echo" => embedded::echo(),
            "flaky" => embedded::flaky(),
            "picky" => embedded::picky(),
            "endless" => embedded::endless(),
            "glutton" => embedded::glutton(),
            other => panic!("no plugin {other} is built"),
        };
        self.file(&format!("plugins/{name}.toml"), manifest);
        self.file(&format!("plugins/{name}.wasm"), wasm);
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.tool(env!("CARGO_BIN_EXE_scutwork"), arguments)
    }

    /// A program of another's, as it would be called here.
    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).args(arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("SCUTWORK_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        // What the program keeps for itself stays in this folder too; but for what it compiles, which
        // would be the same in each.
        command
            .env("TMPDIR", self.path())
            .env("HOME", self.path())
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        // Rust's own is what a build may use all the same.
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(name).is_none() {
                command.env(name, home.join(folder));
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    /// Runs a command to its end, with something on stdin.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Ended {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // The command may end without reading it all.
        let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
        let mut out = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            out.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut stderr = Vec::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut stderr)
            .unwrap();
        let status = child.wait().unwrap();
        writer.join().unwrap();
        Ended {
            code: status.code(),
            stdout: reader.join().unwrap(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs a program of another's to its end, in a folder of this one.
    pub(crate) fn call(&self, folder: &str, program: &str, arguments: &[&str]) -> Ended {
        let mut tool = self.tool(program, arguments);
        // A program is looked for on the path that it is given, not on this process's own.
        if let Some((_, path)) = self.environment.iter().find(|(name, _)| *name == "PATH") {
            let found = std::env::split_paths(path)
                .map(|folder| folder.join(program))
                .find(|path| path.is_file());
            let found = found.unwrap_or_else(|| panic!("no {program} on the path"));
            tool = self.tool(found.to_str().unwrap(), arguments);
        }
        let output = tool.current_dir(self.path().join(folder)).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command that goes on, and listens to its stderr.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self
            .command(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        Running::listen(child, stderr)
    }

    /// Starts a command that goes on, and listens to its stdout.
    pub(crate) fn start_and_hear(&self, arguments: &[&str]) -> Running {
        let mut child = self
            .command(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        Running::listen(child, stdout)
    }

    /// Starts a worker and waits until it takes tasks.
    pub(crate) fn worker(&self, broker: &str, queue: &str, more: &[&str]) -> Running {
        let mut arguments = vec!["worker", "--broker", broker, "--queue", queue, "-v"];
        arguments.extend(more);
        let mut worker = self.start(&arguments);
        worker.wait_for("taking tasks");
        worker
    }
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts the exit code, and shows everything when it is another.
    pub(crate) fn exits(self, code: i32) -> Ended {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.text(),
            self.stderr
        );
        self
    }

    /// Asserts that stderr holds every one of these texts.
    pub(crate) fn says(self, texts: &[&str]) -> Ended {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "no {text:?} in: {}",
                self.stderr
            );
        }
        self
    }
}

impl Running {
    fn listen(child: Child, output: impl Read + Send + 'static) -> Running {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for one more line.
    pub(crate) fn next_line(&mut self) -> String {
        self.wait_for("")
    }

    /// Waits for a line of stderr that holds this text, and gives it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!(
                    "no line with {text:?} came; seen:\n{}",
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// The most memory that it has had until now, in bytes. None: it has ended.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// kill -9
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; gives the exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Waits for its end; gives the exit code and all that it said.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut said = std::mem::take(&mut self.seen);
        said.extend(self.lines.iter());
        (status.code(), said.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Whatever failed, this is where to look for why. The pipe is empty soon: its writer is gone.
            self.seen.extend(self.lines.iter());
            let last = self.seen.len().saturating_sub(LAST_WORDS);
            let (before, last) = self.seen.split_at(last);
            let warnings = before.iter().rev().filter(|line| line.contains(" WARN "));
            for line in warnings.take(LAST_WORDS).collect::<Vec<_>>().iter().rev() {
                eprintln!("a command warned: {line}");
            }
            eprintln!("a command said last:\n{}", last.join("\n"));
        }
    }
}
