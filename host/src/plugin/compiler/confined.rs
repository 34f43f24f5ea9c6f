//! The child's side: a process that gives up what it does not need, compiles one plugin, and ends.
//! Whatever is in those bytes, this process is all that it can cost.

use std::io::{self, BufReader, Write};
use std::panic;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::protocol::{self, Answer, Request};

/// Compiles what comes on stdin, and answers on stdout. It is the hidden command `compile`, which
/// the compiler starts; call it before there are threads.
pub fn serve() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent passes it on. It may be gone.
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> anyhow::Result<()> {
    give_up_rights().context("cannot give up its rights")?;
    let mut input = BufReader::new(io::stdin().lock());
    let request: Request = protocol::receive(&mut input).context("no request came")?;
    bound(&request).context("cannot bound itself")?;
    let wasm = protocol::receive_body(&mut input, request.size).context("the plugin ends early")?;
    let (answer, code) = compile(&request, &wasm);
    protocol::send(&mut io::stdout().lock(), &answer, &code).context("nobody takes the answer")
}

fn compile(request: &Request, wasm: &[u8]) -> (Answer, Vec<u8>) {
    let answer = match panic::catch_unwind(|| request.target.compile(wasm)) {
        Ok(Ok(code)) => {
            let code = code.bytes().to_vec();
            let size = code.len() as u64;
            return (Answer::Compiled { size }, code);
        }
        Ok(Err(refused)) if tells_of_memory(&refused.to_string()) => Answer::OutOfMemory,
        Ok(Err(refused)) => Answer::Refused(refused),
        Err(panicked) => {
            let text = crate::plugin::order::panic_text(panicked.as_ref());
            if tells_of_memory(text) {
                Answer::OutOfMemory
            } else {
                Answer::Panicked(text.to_owned())
            }
        }
    };
    (answer, Vec::new())
}

/// The compiler has no types for it: ENOMEM for a mapping, EAGAIN for a thread's stack. A plugin that
/// has these words in its names is refused either way.
fn tells_of_memory(text: &str) -> bool {
    // The second two are how an error is shown inside another one.
    [
        "os error 12",
        "os error 11",
        "Os { code: 12,",
        "Os { code: 11,",
        "out of memory",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// What holds whatever is asked for. The compiler reads and writes no file, and starts no program.
fn give_up_rights() -> io::Result<()> {
    /// The three pipes, and what the system's libraries open for themselves.
    const OPEN_FILES: u64 = 32;
    #[cfg(target_os = "linux")]
    {
        // Where memory is short, this process is the one to go, and not its parent. A system without
        // this file has another way to choose.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        use rustix::process::{DumpableBehavior, Signal};
        // The parent may be gone already; then the request ends early.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    lower(Resource::Core, 0)?;
    lower(Resource::Fsize, 0)?;
    lower(Resource::Nofile, OPEN_FILES)
}

/// What the operator set.
fn bound(request: &Request) -> io::Result<()> {
    /// Compiling is not urgent and takes every core that it finds, so a thread that serves gets ten
    /// times the share. Less still, and a plugin would never arrive on a busy host.
    const NICENESS: i32 = 10;
    // Where it may not be lowered, compiling is merely not polite.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    lower(Resource::Cpu, request.seconds)?;
    lower(Resource::As, request.memory)
}

/// Lowers a limit, for good. One that is lower already stays.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let least = |bound: Option<u64>| Some(bound.map_or(most, |bound| bound.min(most)));
    let maximum = match resource {
        // At the same second the kernel would kill, and nobody would know why.
        Resource::Cpu => now
            .maximum
            .map_or(most + 1, |bound| bound.min(most + 1))
            .into(),
        _ => least(now.maximum),
    };
    let limit = Rlimit {
        current: least(now.current),
        maximum,
    };
    Ok(setrlimit(resource, limit)?)
}
