//! Each mistake that newcomers make is told in words that they can act on. What is said is kept whole in
//! `messages/`, a file a mistake, for people to read as newcomers do; SCUTWORK_MESSAGES=write writes them
//! anew.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::program::{Ended, Place};
use crate::support::wat;

/// Asserts that a command said what the file of this name has, and failed with this code.
#[track_caller]
pub(super) fn told(name: &str, place: &Place, code: i32, ended: Ended) {
    let ended = ended.exits(code);
    let here = place.path().to_str().unwrap();
    let said = format!("{}{}", ended.text(), ended.stderr).replace(here, "HERE");
    let mut lines: Vec<_> = said.lines().map(lasting).collect();
    // How deep functions without names call each other is the compiler's choice.
    lines.dedup_by(|line, before| line == before && line.ends_with(NAMELESS));
    let said = lines.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/authors/messages")
        .join(format!("{name}.txt"));
    if std::env::var("SCUTWORK_MESSAGES").is_ok_and(|asked| asked == "write") {
        std::fs::write(&path, &said).unwrap();
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; it says:\n{said}", path.display()));
    assert!(said == kept, "{name}: it says\n{said}\nand not\n{kept}");
}

/// How a frame of a backtrace ends that has no name.
const NAMELESS: &str = "<unknown>!<wasm function ..>";

/// A line with `..` for what differs from run to run and from build to build, and nothing else.
fn lasting(line: &str) -> String {
    let digits = |after: &str, line: &str| without(line, after, |c| c.is_ascii_digit());
    if line.starts_with("used: ") {
        let line = without(line, "wall ", |c| c != ',');
        return digits("peak memory ", &without(&line, "cpu ", |c| c != ','));
    }
    let line = without(line, "0x", |c| c.is_ascii_hexdigit());
    let line = digits("wasm function ", &line);
    // A line of what jco made of all files together.
    let line = without(&line, "/plugin.js:", |c| c.is_ascii_digit() || c == ':');
    // A frame of a backtrace, its columns as wide as its figures.
    match line.split_once(':') {
        Some((number, frame))
            if number.trim().parse::<u32>().is_ok() && frame.trim().starts_with("0x..") =>
        {
            format!("    ..: {}", frame.trim())
        }
        _ => line,
    }
}

/// A line with `..` for the figure that follows a text, wherever it comes.
fn without(line: &str, after: &str, is_figure: impl Fn(char) -> bool) -> String {
    let mut parts = line.split(after);
    let mut lasting = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&is_figure);
        let figure = if rest.len() < part.len() { ".." } else { "" };
        lasting.extend([after, figure, rest]);
    }
    lasting
}

/// What `plugin check` says of a file that would not serve.
#[track_caller]
fn refused(name: &str, wasm: &[u8]) {
    let place = Place::new();
    place.file("thumb.wasm", wasm);
    told(
        name,
        &place,
        1,
        place.run(&["plugin", "check", "thumb.wasm"]),
    );
}

#[track_caller]
fn refused_module(name: &str, text: &str) {
    refused(name, &::wat::parse_str(text).unwrap());
}

#[test]
fn a_file_that_would_not_serve_is_told_why_and_what_to_do() {
    let run = "(func (export \"run\"))";
    refused("no-webassembly", b"<html>not found</html>");
    refused_module("for-no-system", &format!("(module {run})"));
    refused_module("reactor", "(module (func (export \"_initialize\")))");
    refused_module(
        "no-component",
        "(module (func (export \"scutwork:task/handler@0.1.0#handle\")))",
    );
    refused_module(
        "wasm-bindgen",
        &format!("(module (import \"__wbindgen_placeholder__\" \"f\" (func)) {run})"),
    );
    refused(
        "old-contract",
        &wat::assembled("scutwork:task/handler@0.0.1", HANDLE),
    );
    refused("wrong-world", &wat::assembled("a:b/c@0.1.0", HANDLE));
    refused(
        "forgotten-export",
        &::wat::parse_str("(component)").unwrap(),
    );
}

#[test]
fn a_run_that_goes_wrong_is_told_why_and_what_to_do() {
    let place = Place::new();
    let nosy = scutwork::plugin::embedded::nosy();
    place.file("nosy.wasm", nosy);
    place.file("nosy.toml", "[env]\nWHY = \"no bolt is left\"\n");
    let run = |payload: &str| place.run(&["run", "./nosy.wasm", payload]);
    told("panic", &place, 1, run("panic WHY"));
    told(
        "no-grant",
        &place,
        0,
        run("get https://api.example.com/bolts"),
    );
    place.plugin("echo", "");
    let long = "x".repeat(2000);
    let set = ["run", "echo", &long, "--set", "limits.output=1KiB"];
    told("output-too-large", &place, 1, place.run(&set));
    let set = ["run", "echo", "x", "--set", "limits.outptu=1KiB"];
    told("limit-misspelt", &place, 2, place.run(&set));
}

#[test]
fn a_payload_that_is_no_json_is_told_where() {
    let place = super::place();
    place
        .run(&["plugin", "new", "sums", "--lang", "rust"])
        .exits(0);
    place.file("sums/src/lib.rs", SUMS);
    place.run(&["plugin", "build", "sums"]).exits(0);
    assert_eq!(
        place
            .run(&["run", "sums/sums.wasm", "[1, 2]"])
            .exits(0)
            .text(),
        "3"
    );
    told(
        "no-json",
        &place,
        1,
        place.run(&["run", "sums/sums.wasm", "[1, two]"]),
    );
}

const SUMS: &str = r#"//! Adds numbers.

use scutwork_plugin::{Failure, Output, Task, plugin};

plugin!(handle);

fn handle(task: Task) -> Result<Output, Failure> {
    let numbers: Vec<u32> = task.json()?;
    Output::json(&numbers.iter().sum::<u32>())
}
"#;

#[test]
fn a_rust_target_that_is_missing_is_named_with_how_to_get_it() {
    for (name, more) in [
        ("rust-target", None),
        ("rust-target-of-commands", Some("--command")),
    ] {
        let mut place = Place::new();
        let new = ["plugin", "new", "thumb", "--lang", "rust"];
        let new: Vec<_> = new.into_iter().chain(more).collect();
        place.run(&new).exits(0);
        // A rustc that has nothing but its own machine's.
        for program in ["cargo", "rustc"] {
            tool(&place, program, "/nowhere");
        }
        place.set("PATH", place.path().join("plugins"));
        told(name, &place, 1, place.run(&["plugin", "build", "thumb"]));
    }
}

#[test]
fn a_toolchain_that_is_too_old_or_half_there_is_told_with_what_is_needed() {
    for (name, language, programs, answer) in [
        ("go-too-old", "go", &["go"][..], "go1.19.8"),
        ("node-too-old", "js", &["node"], "v18.20.4"),
        ("no-jco", "js", &["node"], "v22.12.0"),
        ("no-wasi-libc", "c", &["clang"], "libc.a"),
        ("no-wasi-libcpp", "cpp", &["clang++"], "libc++.a"),
    ] {
        let mut place = Place::new();
        let new = ["plugin", "new", "thumb", "--lang", language];
        place.run(&new).exits(0);
        for program in programs {
            tool(&place, program, answer);
        }
        place.set("PATH", place.path().join("plugins"));
        told(name, &place, 1, place.run(&["plugin", "build", "thumb"]));
    }
}

/// Makes a program that answers every question with this.
fn tool(place: &Place, program: &str, answer: &str) {
    let text = format!("#!/bin/sh\necho {answer}\n");
    let program = place.file(&format!("plugins/{program}"), text);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
}

const HANDLE: &str =
    "(memory (export \"memory\") 1) (func (export \"handle\") (type $handle) i32.const 256)";

#[test]
fn a_name_that_is_not_allowed_is_refused_with_what_is() {
    let place = Place::new();
    for (name, shown) in [
        ("../thumb", "name-of-a-path"),
        (".thumb", "name-hidden"),
        ("a b", "name-of-two"),
        ("thumb.wasm", "name-of-a-file"),
    ] {
        let ended = place.run(&["plugin", "new", name, "--lang", "rust"]);
        told(shown, &place, 2, ended);
    }
}

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let place = Place::new();
    place
        .run(&["plugin", "new", "plugins", "--lang", "c"])
        .exits(0);
    place
        .run(&["plugin", "new", "plugins", "--lang", "c"])
        .exits(2)
        .says(&["is there already", "another name"]);
    std::os::unix::fs::symlink("nowhere", place.path().join("thumb")).unwrap();
    place
        .run(&["plugin", "new", "thumb", "--lang", "c"])
        .exits(2)
        .says(&["thumb is there already"]);
    assert!(!place.path().join("nowhere").exists());
}

#[test]
fn a_language_may_be_called_by_its_whole_name() {
    for (name, language) in [
        ("py", "Python"),
        ("javascript", "JavaScript"),
        ("typescript", "TypeScript"),
        ("c++", "C++"),
    ] {
        Place::new()
            .run(&["plugin", "new", "thumb", "--lang", name])
            .exits(0)
            .says(&[&format!("made a plugin in {language}")]);
    }
}

#[test]
fn a_language_without_commands_says_so() {
    Place::new()
        .run(&["plugin", "new", "thumb", "--lang", "python", "--command"])
        .exits(2)
        .says(&["component alone", "leave --command out"]);
}

#[test]
fn a_folder_without_a_plugin_says_how_to_make_one() {
    Place::new()
        .run(&["plugin", "build"])
        .exits(66)
        .says(&["holds no plugin", "scutwork plugin new"]);
}

#[test]
fn a_toolchain_that_is_missing_is_named_with_how_to_get_it() {
    for language in [
        "rust",
        "python",
        "js",
        "ts",
        "c",
        "cpp",
        "go",
        "zig",
        "assemblyscript",
    ] {
        let mut place = Place::new();
        place
            .run(&["plugin", "new", "thumb", "--lang", language])
            .exits(0);
        place.set("PATH", place.path().join("plugins"));
        let ended = place.run(&["plugin", "build", "thumb"]);
        told(&format!("no-toolchain-{language}"), &place, 1, ended);
    }
}

#[test]
fn a_capability_that_is_not_granted_is_told_with_the_lines_to_add() {
    let place = Place::new();
    place.file("nosy.wasm", scutwork::plugin::embedded::nosy());
    let check = || place.run(&["plugin", "check", "nosy.wasm"]).exits(0).stderr;
    let wanted = "HTTP requests are linked in and not granted; if it uses them, write in nosy.toml: \
                  [http] allow = [\"https://api.example.com\"]";
    assert!(check().contains(wanted), "{}", check());
    assert!(check().contains("sockets are linked in, and no plugin is granted them"));
    // A section that is there grants what it says, which may be nothing.
    place.file("nosy.toml", "[http]\nallow = []\n[files]\n");
    assert!(check().contains(wanted), "{}", check());
    assert!(
        check().contains("files are linked in and not granted"),
        "{}",
        check()
    );
    place.file("nosy.toml", "[http]\nallow = [\"https://example.com\"]\n");
    assert!(!check().contains("HTTP requests"), "{}", check());
}

#[test]
fn more_memory_at_the_start_than_the_limit_is_a_problem() {
    let place = Place::new();
    place.file("echo.wasm", scutwork::plugin::embedded::echo());
    place.file("echo.toml", "[limits]\nmemory = \"64KiB\"\n");
    let said = place.run(&["plugin", "check", "echo.wasm"]).exits(1).text();
    assert!(said.contains("raise limits.memory in echo.toml"), "{said}");
}
