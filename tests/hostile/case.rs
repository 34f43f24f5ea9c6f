//! One hostile plugin: its source, its manifest, and how it is expected to end.
//!
//! A file begins with lines that say so: what it does in words, then `expect:` with the kind of its
//! failure, `done` or `refused`; `says:` with what the failure or refusal holds; `never:` with what it does not; `logs:` with what a
//! line of its log holds; `limits:` and `manifest:` with lines of its manifest; `payload:` with a line of it; `plugin:`
//! with one that the host's build makes, in place of a source.
//!
//! The source is a module, a component, or the fields of a module that is wrapped as a plugin. In it
//! `(;repeat N;)` to `(;end;)` is repeated, `{n}` in it counts; `(;core;)` declares what the handler's
//! module needs, `(;handler;)` makes the instance `$core` the plugin's handler.

use std::path::{Path, PathBuf};

use scutwork::plugin::embedded;

use crate::support::wat;

pub(super) struct Case {
    pub(super) name: String,
    pub(super) payload: String,
    wasm: Vec<u8>,
    manifest: String,
    expected: String,
    says: Vec<String>,
    never: Vec<String>,
}

/// Every file in the folder. Where one says `{port}`, the test's own server listens.
pub(super) fn all(port: u16) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/hostile");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            Case::parse(name, &text.replace("{port}", &port.to_string()))
        })
        .collect()
}

/// A folder for the plugins, with one beside it that some are granted, and what those must not reach.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let granted = folder.path().join("granted");
    std::fs::create_dir_all(granted.join("inner")).unwrap();
    std::fs::write(folder.path().join("secret"), "not for plugins").unwrap();
    std::fs::write(granted.join("mine"), "for plugins").unwrap();
    std::fs::write(granted.join("read-me"), "for plugins").unwrap();
    std::fs::create_dir(granted.join("empty")).unwrap();
    std::os::unix::fs::symlink("../secret", granted.join("link-to-secret")).unwrap();
    std::os::unix::fs::symlink("..", granted.join("link-to-parent")).unwrap();
    folder
}

impl Case {
    pub(super) fn parse(name: &str, text: &str) -> Case {
        let mut case = Case {
            name: name.to_owned(),
            payload: String::new(),
            wasm: Vec::new(),
            manifest: String::new(),
            expected: String::new(),
            says: Vec::new(),
            never: Vec::new(),
        };
        let mut plugin = None;
        let mut limits = String::new();
        let header = text.lines().map_while(|line| line.strip_prefix(";;"));
        for line in header {
            match line.trim().split_once(": ") {
                Some(("expect", word)) => case.expected = word.to_owned(),
                Some(("says" | "logs", text)) => case.says.push(text.to_owned()),
                Some(("never", text)) => case.never.push(text.to_owned()),
                Some(("limits", line)) => limits += &format!("{line}\n"),
                Some(("manifest", line)) => case.manifest += &format!("{line}\n"),
                Some(("payload", text)) => {
                    if !case.payload.is_empty() {
                        case.payload.push('\n');
                    }
                    case.payload += text;
                }
                Some(("plugin", "nosy")) => plugin = Some(embedded::nosy()),
                Some(_) | None => {}
            }
        }
        assert!(!case.expected.is_empty(), "{name} expects nothing");
        if !limits.is_empty() {
            case.manifest = format!("[limits]\n{limits}{}", case.manifest);
        }
        case.wasm = match plugin {
            Some(wasm) => wasm.to_vec(),
            None => assemble(name, text),
        };
        case
    }

    /// Puts the plugin and its manifest into a folder. What it fails at is not tried again.
    pub(super) fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join(format!("{}.wasm", self.name));
        std::fs::write(&file, &self.wasm).unwrap();
        let granted = folder.join("granted");
        let manifest = self.manifest.replace("{folder}", granted.to_str().unwrap());
        let manifest = format!("{manifest}[retry]\nmax_attempts = 1\n");
        std::fs::write(file.with_extension("toml"), manifest).unwrap();
        file
    }

    /// How an ending differs from the one that is expected.
    pub(super) fn compare(&self, word: &str, said: &str) -> Result<(), String> {
        let missing = self.says.iter().find(|text| !said.contains(*text));
        let mut never = self.never.iter().map(String::as_str);
        let forbidden = never.find(|text| said.contains(text));
        let has_panicked = said.contains("the host panicked");
        if word == self.expected && missing.is_none() && forbidden.is_none() && !has_panicked {
            return Ok(());
        }
        let said: String = said.chars().take(1_000).collect();
        Err(format!(
            "{}: expected {}{}, but it is {word}: {said}",
            self.name,
            self.expected,
            missing.map_or_else(String::new, |text| format!(" with {text:?}")),
        ))
    }
}

fn assemble(name: &str, text: &str) -> Vec<u8> {
    let source: String = text
        .lines()
        .skip_while(|line| line.starts_with(";;"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let source = repeated(source.trim());
    if source.starts_with("(module") {
        ::wat::parse_str(&source).unwrap_or_else(|error| panic!("{name}: {error}"))
    } else if source.starts_with("(component") {
        wat::whole(&source)
    } else {
        wat::plugin(&source)
    }
}

fn repeated(source: &str) -> String {
    const END: &str = "(;end;)";
    let Some((before, rest)) = source.split_once("(;repeat ") else {
        return source.to_owned();
    };
    let (times, rest) = rest.split_once(";)").unwrap();
    let (body, rest) = rest.split_once(END).unwrap();
    let times: usize = times.parse().unwrap();
    let mut text = before.to_owned();
    for n in 0..times {
        text += &body.replace("{n}", &n.to_string());
    }
    text + &repeated(rest)
}
