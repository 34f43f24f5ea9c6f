//! The parent's side: a child process of this program that compiles one plugin, and what its end
//! means.

use std::io::{self, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{self, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::CompileError;
use super::cache::{FailureKey, Key};
use super::protocol::{self, Answer, Request};
use crate::sandbox::compile::{NativeCode, Target};

/// How often to see whether the plugin is wanted still.
const TICK: Duration = Duration::from_millis(50);

/// How much longer than its CPU time a child may take by the clock, and the least that it may: it
/// yields to all that serve, so on a machine with better to do it gets little of a processor.
const PATIENCE: u32 = 20;
const LEAST_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The most threads of one child. Each has a stack in the address space that bounds the child.
const MOST_THREADS: usize = 8;

/// How much is kept of what a child says on stderr, in bytes.
const LAST_WORDS: u64 = 16 << 10;

/// How to start one.
pub(super) struct Child {
    pub(super) program: PathBuf,
    /// Address space, in bytes.
    pub(super) memory: u64,
    /// CPU time, to the second.
    pub(super) time: Duration,
}

/// A child that runs; killed when dropped.
struct Running(process::Child);

/// Why a child was not let finish.
enum BrokenOff {
    Late,
    Unwanted,
}

impl Child {
    /// Compiles a plugin in a process of its own.
    pub(super) fn compile(
        &self,
        target: Target,
        wasm: &[u8],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<NativeCode, CompileError> {
        let mut child = self.spawn().map_err(|error| {
            CompileError::NoChild(format!("{}: {error}", self.program.display()))
        })?;
        let request = Request {
            target,
            memory: self.memory,
            seconds: self.seconds(),
            size: wasm.len() as u64,
        };
        let (mut input, output, errors) = child.pipes();
        let (sender, ended) = channel::<()>();
        thread::scope(|scope| {
            // Dropped at the end of this scope, or earlier by an error: then the pipes close, and the
            // threads end.
            let mut child = child;
            let start = |name: &str| thread::Builder::new().name(format!("compile-{name}"));
            let no_thread = |error: io::Error| CompileError::NoChild(error.to_string());
            start("in")
                // A child that does not take it all tells why by its end.
                .spawn_scoped(scope, move || protocol::send(&mut input, &request, wasm))
                .map_err(no_thread)?;
            let last_words = start("err")
                .spawn_scoped(scope, move || last_words(errors))
                .map_err(no_thread)?;
            let answer = start("out")
                .spawn_scoped(scope, move || {
                    let answer = receive(output, self.memory);
                    drop(sender);
                    answer
                })
                .map_err(no_thread)?;
            let broken_off = self.wait(&ended, is_wanted);
            let status = child.end();
            let said = last_words.join().unwrap_or_default();
            match (answer.join(), broken_off) {
                (Ok(Ok((answer, code))), _) => self.understand(answer, code),
                (_, Some(BrokenOff::Unwanted)) => Err(CompileError::Withdrawn),
                (_, Some(BrokenOff::Late)) => Err(CompileError::Clock(self.patience())),
                (Ok(Err(_)) | Err(_), None) => Err(self.explain(status, &said)),
            }
        })
    }

    /// What a failure within its bounds is known by.
    pub(super) fn within(&self, key: &Key) -> FailureKey {
        key.within(self.memory, Duration::from_secs(self.seconds()))
    }

    fn spawn(&self) -> io::Result<Running> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Command::new(&self.program)
            .arg0("scutwork")
            .arg("compile")
            .env_clear()
            .env("RAYON_NUM_THREADS", cores.min(MOST_THREADS).to_string())
            // What is bounded is address space, which allocators reserve ahead: Rust's by the GiB, and
            // glibc's, for code in C, by the 64 MiB for each thread.
            .env("MIMALLOC_ARENA_RESERVE", "32MiB")
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir("/")
            // Ctrl-C on a terminal is for the parent, which decides what becomes of the child.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Running)
    }

    fn wait(&self, ended: &Receiver<()>, is_wanted: &dyn Fn() -> bool) -> Option<BrokenOff> {
        let deadline = Instant::now() + self.patience();
        loop {
            match ended.recv_timeout(TICK) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if !is_wanted() => return Some(BrokenOff::Unwanted),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Some(BrokenOff::Late);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn understand(&self, answer: Answer, code: Vec<u8>) -> Result<NativeCode, CompileError> {
        match answer {
            Answer::Compiled { .. } => Ok(NativeCode::vouched_for(code)),
            Answer::Refused(refused) => Err(refused.into()),
            Answer::OutOfMemory => Err(CompileError::Memory(self.memory)),
            Answer::Panicked(text) => Err(CompileError::Failed(text)),
        }
    }

    /// What it means that a child ended without an answer.
    fn explain(&self, status: io::Result<ExitStatus>, said: &str) -> CompileError {
        let status = match status {
            Ok(status) => status,
            Err(error) => return CompileError::NoChild(error.to_string()),
        };
        let killed_by = |signal: Signal| status.signal() == Some(signal.as_raw());
        if killed_by(Signal::XCPU) {
            return CompileError::Time(Duration::from_secs(self.seconds()));
        }
        // The standard library's words, when it aborts for want of memory.
        if killed_by(Signal::ABORT) && said.contains("memory allocation of ") {
            return CompileError::Memory(self.memory);
        }
        if killed_by(Signal::KILL) {
            // Tried again and again, it would take the machine's memory each time.
            return CompileError::Failed(
                "the system killed it, most likely for want of memory; lower compile.memory below what this machine can spare".to_owned(),
            );
        }
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        match (status.code(), last) {
            // It never came to the plugin.
            (Some(1), Some(line)) => CompileError::NoChild(line.to_owned()),
            (_, Some(line)) => CompileError::Failed(format!("{status}: {line}")),
            (_, None) => CompileError::Failed(status.to_string()),
        }
    }

    /// The kernel counts whole seconds.
    fn seconds(&self) -> u64 {
        self.time
            .as_millis()
            .div_ceil(1000)
            .try_into()
            .unwrap_or(u64::MAX - 1)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds())
            .saturating_mul(PATIENCE)
            .max(LEAST_PATIENCE)
    }
}

impl Running {
    fn pipes(&mut self) -> (process::ChildStdin, ChildStdout, ChildStderr) {
        const PIPED: &str = "all three are piped, and are taken once";
        (
            self.0.stdin.take().expect(PIPED),
            self.0.stdout.take().expect(PIPED),
            self.0.stderr.take().expect(PIPED),
        )
    }

    /// Kills it unless it has ended, and gives how it ended. One that dies already keeps its reason.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has mostly ended, and there is nothing to do about it here.
        let _ = self.end();
    }
}

fn receive(output: ChildStdout, most: u64) -> io::Result<(Answer, Vec<u8>)> {
    let mut output = BufReader::new(output);
    let answer = protocol::receive(&mut output)?;
    let code = match &answer {
        // It had no room for that.
        Answer::Compiled { size } if *size > most => return Err(io::ErrorKind::InvalidData.into()),
        Answer::Compiled { size } => protocol::receive_body(&mut output, *size)?,
        Answer::Refused(_) | Answer::OutOfMemory | Answer::Panicked(_) => Vec::new(),
    };
    Ok((answer, code))
}

/// What a child says beside its answer. All of it is read, so that it never waits to say it.
fn last_words(mut errors: ChildStderr) -> String {
    let mut words = Vec::new();
    // What was said until the error is all that there is.
    let _ = errors.by_ref().take(LAST_WORDS).read_to_end(&mut words);
    let _ = io::copy(&mut errors, &mut io::sink());
    String::from_utf8_lossy(&words).into_owned()
}
