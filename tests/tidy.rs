//! The house: the directions between modules hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::rust_code::{code_of, words};

/// Who alone may name a crate or keyword: the word, and the beginnings of paths under `host/src`.
const ONLY: [(&str, &[&str]); 5] = [
    ("lapin", &["broker/rabbitmq"]),
    ("rusqlite", &["broker/sqlite"]),
    ("wasmtime", &["plugin", "sandbox"]),
    ("scutwork_wasi", &["sandbox"]),
    // Native code cannot be checked, and an allocator has no other way to be told anything. Everything else that
    // needs it belongs into a crate made for it.
    ("unsafe", &["main.rs", "sandbox/load.rs"]),
];

/// Who never reaches what.
const NEVER: [(&str, &[&str]); 3] = [
    ("broker", &["plugin", "sandbox"]),
    ("plugin", &["broker"]),
    ("sandbox", &["broker", "plugin"]),
];

const BANNED_NAMES: [&str; 5] = ["util", "common", "helpers", "misc", "manager"];

/// A source file without what is no code: comments, what is quoted, and the tests at its end.
struct Source {
    /// Under `host/src`.
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let mut code = code_of(&text);
        if path.ends_with("/tests.rs") {
            code.clear();
        } else if let Some(tests) = code.find("#[cfg(test)]\nmod ") {
            code.truncate(tests);
        }
        Source {
            path: path.to_owned(),
            text,
            code,
        }
    }

    fn at(&self, offset: usize, what: &str) -> String {
        let line = 1 + self.code[..offset].matches('\n').count();
        format!("host/src/{}:{line}: {what}", self.path)
    }

    /// Every word of the code with its place. Raw identifiers and macros' names are words too.
    fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code)
    }

    fn is_of(&self, module: &str) -> bool {
        self.path == format!("{module}.rs") || self.path.starts_with(&format!("{module}/"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // What was built there is nobody's to name: a plugin may be built in its own folder.
            if !path.ends_with("target") {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let directory = root().join("host/src");
    let sources: Vec<_> = rust_files(&directory)
        .into_iter()
        .map(|path| {
            let shown = path
                .strip_prefix(&directory)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            Source::new(&shown, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(sources.len() > 10, "the sources are elsewhere");
    sources
}

fn hold(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Uses of a crate where another part of the house has it to itself.
fn misplaced_words(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (at, word) in source.words() {
        for (owned, owners) in ONLY {
            let is_it = word == owned || word.starts_with(&format!("{owned}_"));
            if is_it
                && word != "unsafe_code"
                && !owners.iter().any(|owner| source.path.starts_with(owner))
            {
                violations.push(source.at(at, &format!("names {word}; only {owners:?} may")));
            }
        }
    }
    violations
}

/// The modules at the top of the crate that the code reaches by `crate::`, with their places.
fn reached(code: &str) -> Vec<(usize, &str)> {
    let mut reached = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let path = &code[at + "crate::".len()..];
        match path.strip_prefix('{') {
            None => reached.extend(words(path).next().map(|(_, word)| (at, word))),
            Some(group) => {
                let mut depth = 0;
                let mut item_begins = true;
                for (offset, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => item_begins = true,
                        c if c.is_alphabetic() && item_begins => {
                            item_begins = false;
                            reached.extend(words(&group[offset..]).next().map(|(_, w)| (at, w)));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    reached
}

fn forbidden_reaches(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (module, forbidden) in NEVER {
        if source.is_of(module) {
            for (at, reached) in reached(&source.code) {
                if forbidden.contains(&reached) {
                    violations.push(source.at(at, &format!("{module} reaches {reached}")));
                }
            }
        }
    }
    violations
}

/// Places where a retry or a dead letter is decided, rather than looked at.
fn decisions(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut violations = Vec::new();
    for variant in ["Settlement::Retry", "Settlement::Dead"] {
        for (at, _) in code.match_indices(variant) {
            let rest = &code[at + variant.len()..];
            if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') || is_pattern(rest) {
                continue;
            }
            violations.push(source.at(
                at,
                &format!("makes a {variant}; only settlement.rs decides that"),
            ));
        }
    }
    violations
}

/// Whether what follows a variant's name makes it a pattern: the rest left out, or an arm, an
/// alternative or a `let` after it or after the tuple that it is in.
fn is_pattern(rest: &str) -> bool {
    let Some(fields) = rest.trim_start().strip_prefix('{') else {
        return false;
    };
    let Some(end) = closing(fields).filter(|end| fields[*end..].starts_with('}')) else {
        return false;
    };
    if fields[..end].trim_end().ends_with("..") {
        return true;
    }
    let mut after = &fields[end + 1..];
    loop {
        let next = after.trim_start();
        if ["=", "|", "if "].iter().any(|sign| next.starts_with(sign)) {
            return true;
        }
        match closing(after) {
            Some(end) if after[end..].starts_with(')') => after = &after[end + 1..],
            Some(_) | None => return false,
        }
    }
}

/// Where the bracket that is open when the code begins is closed.
fn closing(code: &str) -> Option<usize> {
    let mut depth = 0;
    code.char_indices().find_map(|(at, c)| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return Some(at),
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        None
    })
}

#[test]
fn crates_and_keywords_stay_where_they_belong() {
    hold(sources().iter().flat_map(misplaced_words).collect());
}

#[test]
fn brokers_and_sandboxes_never_reach_each_other() {
    hold(sources().iter().flat_map(forbidden_reaches).collect());
}

#[test]
fn only_settlement_decides_between_retry_and_dead_letter() {
    let sources = sources();
    let (settlement, others): (Vec<_>, Vec<_>) = sources
        .iter()
        .partition(|source| source.is_of("settlement"));
    hold(others.into_iter().flat_map(decisions).collect());
    assert!(
        settlement
            .into_iter()
            .any(|source| !decisions(source).is_empty()),
        "nobody decides any more"
    );
}

#[test]
fn every_file_opens_with_what_it_is() {
    let violations = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.at(0, "does not open with a sentence in `//!`"))
        .collect();
    hold(violations);
}

#[test]
fn every_module_is_on_the_map() {
    let map = fs::read_to_string(root().join("host/src/lib.rs")).unwrap();
    let violations = map
        .lines()
        .enumerate()
        .filter_map(|(index, line)| {
            Some((index, line.strip_prefix("pub mod ")?.strip_suffix(';')?))
        })
        .filter(|(_, module)| !map.contains(&format!("//! - [`{module}`]: ")))
        .map(|(index, module)| format!("host/src/lib.rs:{}: {module} is not on the map", index + 1))
        .collect();
    hold(violations);
}

#[test]
fn no_file_is_named_for_what_nobody_could_name() {
    let files = ["host", "plugins", "tests"].map(|directory| rust_files(&root().join(directory)));
    let violations = files
        .iter()
        .flatten()
        .filter(|path| {
            path.with_extension("").components().any(|part| {
                BANNED_NAMES
                    .iter()
                    .any(|banned| part.as_os_str() == *banned)
            })
        })
        .map(|path| format!("{}: name it for the one idea in it", path.display()))
        .collect();
    hold(violations);
}

#[test]
fn every_test_file_is_part_of_the_one_binary() {
    let main = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    let listed: BTreeSet<&str> = main
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let violations = fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "main" && !listed.contains(name.as_str()))
        .map(|name| format!("tests/main.rs: {name} is not listed, so its tests never run"))
        .collect();
    hold(violations);
}

/// Built from others, what is fuzzed would be compiled twice, and would be something else.
#[test]
fn what_is_fuzzed_is_built_from_what_the_host_is_built_from() {
    let locked = |path: &str| -> BTreeSet<(String, String)> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let package = |part: &str| {
            let value = |key: &str| {
                let rest = part.split_once(&format!("\n{key} = \""))?.1;
                Some(rest.split_once('"')?.0.to_owned())
            };
            Some((value("name")?, value("version")?))
        };
        text.split("[[package]]").filter_map(package).collect()
    };
    let host = locked("Cargo.lock");
    assert!(host.len() > 100, "{} packages were read", host.len());
    let others: Vec<_> = locked("tests/fuzz/Cargo.lock")
        .into_iter()
        .filter(|package| !host.contains(package))
        .filter(|(name, _)| host.iter().any(|(known, _)| known == name))
        .map(|(name, version)| {
            format!("tests/fuzz/Cargo.lock: {name} {version}; copy Cargo.lock there, and build")
        })
        .collect();
    hold(others);
}

#[test]
fn what_is_fuzzed_is_built_with_the_features_that_the_host_is_built_with() {
    let built = |manifest: &str| -> BTreeSet<String> {
        let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["tree", "--locked", "--package", "scutwork"])
            .args(["--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p} with [{f}]", "--manifest-path"])
            .arg(root().join(manifest))
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&tree.stderr);
        assert!(tree.status.success(), "{complaint}");
        let lines = String::from_utf8(tree.stdout).unwrap();
        let lines = lines.lines().map(|line| line.trim_end_matches(" (*)"));
        lines.map(str::to_owned).collect()
    };
    let host = built("Cargo.toml");
    assert!(host.len() > 100, "{} packages were read", host.len());
    let others = built("tests/fuzz/Cargo.toml")
        .difference(&host)
        .map(|package| format!("tests/fuzz: {package}; have host/Cargo.toml name that too"))
        .collect();
    hold(others);
}

#[test]
fn a_house_in_disorder_is_noticed_with_file_and_line() {
    let source = |path: &str, text: &str| Source::new(path, text.to_owned());
    assert_eq!(
        misplaced_words(&source("worker.rs", "\nuse wasmtime_wasi::p2;")),
        ["host/src/worker.rs:2: names wasmtime_wasi; only [\"plugin\", \"sandbox\"] may"]
    );
    assert!(misplaced_words(&source("sandbox/engine.rs", "use wasmtime::Engine;")).is_empty());
    assert_eq!(
        forbidden_reaches(&source(
            "broker/sqlite.rs",
            "use crate::{name::A, plugin::{B, C}};"
        )),
        ["host/src/broker/sqlite.rs:1: broker reaches plugin"]
    );
    assert_eq!(
        forbidden_reaches(&source("sandbox.rs", "fn f(_: &crate::broker::Message) {}")).len(),
        1
    );
    for made in [
        "let s = Settlement::Dead { letter, reply };",
        "match s { A => Settlement::Dead { letter, reply }, B => {} }",
        "match s { A => settle(Settlement::Retry { after, record, reply }, mode), B => {} }",
        "use crate::settlement::Settlement::Dead;",
    ] {
        assert_eq!(decisions(&source("worker.rs", made)).len(), 1, "{made}");
    }
    for seen in [
        "match s { Settlement::Retry { after, .. } => {} Settlement::Dead { letter, reply } => {} }",
        "match (s, mode) { (Settlement::Retry { after, record, reply }, Mode::Own) => {} }",
        "let Settlement::Dead { letter, reply } = s else { return };",
        "matches!(s, Settlement::Dead { .. })",
    ] {
        assert_eq!(decisions(&source("worker.rs", seen)), Vec::<String>::new());
    }
}
