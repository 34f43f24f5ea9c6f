//! Plugin authors: from nothing to a task that a worker has done, in each language, by the commands that
//! a person types; and what the common mistakes are told.

mod examples;
mod mistakes;
mod shapes;
mod trials;
mod watching;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::program::Place;

/// Where the toolchains of languages other than Rust are, with `python/bin` and
/// `javascript/node_modules/.bin` in it.
fn toolchains() -> Option<PathBuf> {
    std::env::var_os("SCUTWORK_TEST_TOOLCHAINS").map(PathBuf::from)
}

/// A place whose commands find the toolchains, and keep what they may keep from test to test.
fn place() -> Place {
    let mut place = Place::new();
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("authors");
    // For each test its own: cargo takes packages of one name, each in a workspace of its own, for the same,
    // and one that another test has just built for fresh.
    let test = std::thread::current()
        .name()
        .map(|name| name.replace("::", "-"));
    place.set("CARGO_TARGET_DIR", kept.join("rust").join(test.unwrap()));
    place.set("GOCACHE", kept.join("go"));
    place.set("ZIG_GLOBAL_CACHE_DIR", kept.join("zig"));
    if let Some(toolchains) = toolchains() {
        let own = ["python/bin", "javascript/node_modules/.bin"].map(|bin| toolchains.join(bin));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = own.into_iter().chain(std::env::split_paths(&path));
        place.set("PATH", std::env::join_paths(paths).unwrap());
    }
    place
}

/// Makes, builds, checks, runs and serves a plugin made of a template.
fn lives(language: &str, more: &[&str]) {
    let place = place();
    let broker = format!("sqlite:{}", place.path().join("queue.db").display());
    let _worker = place.worker(&broker, "tasks", &[]);

    let began = Instant::now();
    let mut new = vec!["plugin", "new", "words", "--lang", language];
    new.extend(more);
    place.run(&new).exits(0);
    install(&place.path().join("words"));
    place
        .run(&["plugin", "build", "words", "--out", "plugins"])
        .exits(0);
    // The worker is watching.
    let submit = [
        "submit",
        "words",
        "@words/sample.txt",
        "--wait",
        "--broker",
        &broker,
    ];
    let served = place.run(&submit).exits(0);
    println!(
        "{language} {more:?}: {:.1} s from `plugin new` to the first ack",
        began.elapsed().as_secs_f64()
    );
    counted(&served.text());

    let file = "plugins/words.wasm";
    place.run(&["plugin", "check", file]).exits(0);
    let inspected = place
        .run(&["plugin", "inspect", file, "-o", "json"])
        .exits(0);
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["manifest"]["limits.memory"]["from"], "manifest");

    let run = |payload: &str| place.run(&["run", file, payload]);
    let ended = run("@words/sample.txt").exits(0);
    counted(&ended.text());
    match language {
        "go" | "assemblyscript" => {}
        _ if more == ["--command"] => {}
        "c" | "cpp" | "zig" => drop(ended.says(&["info: counted", "progress: 1/1 counted"])),
        _ => drop(ended.says(&["info: counted words=9", "progress: 1/1 counted"])),
    }
    run("")
        .exits(1)
        .says(&["rejects the task", "there is nothing to count"]);
    run("busy")
        .exits(1)
        .says(&["asks for a retry", "pretends to be busy"]);
    place.run(&["run", file, "busy", "--attempt", "3"]).exits(0);
    // With what the author wrote, and where it happened if the language tells.
    let told = format!("crash-{language}{}", more.join("").replacen("--", "-", 1));
    mistakes::told(&told, &place, 1, run("crash"));

    // The template's own test passes, and fails when the handler is wrong.
    let test = own_test(&place.path().join("words"));
    let tested = || place.call("words", "sh", &["-c", &test]);
    tested().exits(0);
    mistake(&place.path().join("words"));
    assert_ne!(tested().code, Some(0), "{test}: it saw no mistake");
}

/// Does what installing the tools into a plugin's folder would.
fn install(folder: &Path) {
    let Some(toolchains) = toolchains() else {
        return;
    };
    for (from, to) in [
        ("python", ".venv"),
        ("javascript/node_modules", "node_modules"),
    ] {
        std::os::unix::fs::symlink(toolchains.join(from), folder.join(to)).unwrap();
    }
}

/// The one command that a plugin's README tests it with.
fn own_test(folder: &Path) -> String {
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let tests: Vec<_> = readme
        .lines()
        .filter_map(|line| line.split_once(" # tests the "))
        .collect();
    let [(test, _)] = tests[..] else {
        panic!("not one line is the test: {tests:?}");
    };
    test.trim_end().to_owned()
}

/// Makes a plugin ask for more attempts than it should.
fn mistake(folder: &Path) {
    let mut made = 0;
    for source in [
        "src/lib.rs",
        "src/main.rs",
        "plugin.py",
        "handler.js",
        "handler.ts",
        "handler.c",
        "handler.cpp",
        "handler.zig",
        "main.c",
        "main.cpp",
        "main.zig",
        "main.go",
    ] {
        let source = folder.join(source);
        let Ok(text) = std::fs::read_to_string(&source) else {
            continue;
        };
        made += text.matches("< 3").count();
        std::fs::write(source, text.replace("< 3", "< 4")).unwrap();
    }
    assert_eq!(made, 1, "the handlers say which attempt works as `< 3`");
}

/// Makes a plugin of this name, builds it and runs its own test.
fn builds(name: &str, language: &str, more: &[&str]) {
    let place = place();
    let new = [
        "plugin", "new", name, "--lang", language, "-q", "-o", "json",
    ];
    let made = place.run(&[&new, more].concat()).exits(0);
    assert_eq!(made.stderr, "");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made, serde_json::json!({ "folder": name, "name": name }));
    let built = place.run(&["plugin", "build", name, "-o", "json"]).exits(0);
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    assert_eq!(built["check"]["ok"], true, "{built}");
    let test = own_test(&place.path().join(name));
    place.call(name, "sh", &["-c", &test]).exits(0);
}

/// Asserts what the templates' plugins say of `sample.txt`.
fn counted(text: &str) {
    let counts: serde_json::Value = serde_json::from_str(text).unwrap();
    let expected = serde_json::json!({ "lines": 2, "words": 9, "bytes": 46 });
    assert_eq!(counts, expected);
}

/// The slow ones run where they are asked for, and say so where they are not.
fn is_asked(language: &str) -> bool {
    let is_asked = std::env::var("SCUTWORK_LANGUAGES")
        .is_ok_and(|asked| asked == "all" || asked.split(',').any(|asked| asked == language));
    if !is_asked {
        println!("NOT RUN: what is built in {language}; SCUTWORK_LANGUAGES=all runs it");
    }
    is_asked
}

fn lives_if_asked(language: &str, more: &[&str]) {
    if is_asked(language) {
        lives(language, more);
    }
}

#[test]
fn a_plugin_in_rust_lives() {
    lives("rust", &[]);
}

#[test]
fn a_command_in_rust_lives() {
    lives_if_asked("rust", &["--command"]);
}

#[test]
fn a_plugin_in_c_lives() {
    lives_if_asked("c", &[]);
}

#[test]
fn a_command_in_c_lives() {
    lives_if_asked("c", &["--command"]);
}

#[test]
fn a_plugin_in_cpp_lives() {
    lives_if_asked("cpp", &[]);
}

#[test]
fn a_command_in_cpp_lives() {
    lives_if_asked("cpp", &["--command"]);
}

#[test]
fn a_plugin_in_python_lives() {
    lives_if_asked("python", &[]);
}

#[test]
fn a_plugin_in_javascript_lives() {
    lives_if_asked("js", &[]);
}

#[test]
fn a_plugin_in_typescript_lives() {
    lives_if_asked("ts", &[]);
}

#[test]
fn a_command_in_go_lives() {
    lives_if_asked("go", &[]);
}

#[test]
fn a_plugin_may_be_called_as_something_that_its_language_has() {
    if is_asked("rust") {
        builds("build", "rust", &["--command"]);
        builds("scutwork-plugin", "rust", &[]);
    }
    if is_asked("go") {
        builds("image", "go", &[]);
        builds("main", "go", &[]);
    }
}

#[test]
fn a_plugin_in_zig_lives() {
    lives_if_asked("zig", &[]);
}

#[test]
fn a_command_in_zig_lives() {
    lives_if_asked("zig", &["--command"]);
}

#[test]
fn a_command_in_assemblyscript_lives() {
    lives_if_asked("assemblyscript", &[]);
}
