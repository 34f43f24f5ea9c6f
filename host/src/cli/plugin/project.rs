//! [`Project`]: a folder that a plugin is built from, known by the files in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Stopped;
use super::language::{Kind, Language};
use crate::name::PluginName;

/// Where what is built on the way lies, in a project's folder.
const SCRATCH: &str = "build";

/// A folder that a plugin is built from.
#[derive(Debug)]
pub(super) struct Project {
    /// Its path without `..` or links.
    pub(super) folder: PathBuf,
    /// The folder's name, and the plugin's.
    pub(super) name: PluginName,
    pub(super) language: Language,
    pub(super) kind: Kind,
}

impl Project {
    /// The project in a folder.
    pub(super) fn at(folder: &Path) -> Result<Project, Stopped> {
        let folder = fs::canonicalize(folder).map_err(|error| {
            Stopped::not_found(format!("cannot open {}: {error}", folder.display()))
        })?;
        let has = |file: &str| folder.join(file).exists();
        let (language, kind) = recognise(&has).ok_or_else(|| {
            Stopped::not_found(format!(
                "{} holds no plugin that can be told by its files ({}); make one with `scutwork plugin new NAME --lang LANGUAGE`",
                folder.display(),
                MARKS.map(|(file, ..)| file).join(", ")
            ))
        })?;
        let named = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = named.parse::<PluginName>().map_err(|error| {
            Stopped::usage(format!(
                "{error}; the plugin is called as its folder is, so rename the folder"
            ))
        })?;
        Ok(Project {
            folder,
            name,
            language,
            kind,
        })
    }

    /// A folder for what is built on the way, made if it is not there.
    pub(super) fn scratch(&self) -> std::io::Result<PathBuf> {
        let scratch = self.folder.join(SCRATCH);
        fs::create_dir_all(&scratch)?;
        Ok(scratch)
    }

    /// Its own manifest, which goes wherever the plugin goes.
    pub(super) fn manifest(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    /// Its source files with this ending, in one of its folders: `.` is its own.
    pub(super) fn sources(&self, folder: &str, ending: &str) -> std::io::Result<Vec<PathBuf>> {
        let mut sources = Vec::new();
        for entry in fs::read_dir(self.folder.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == ending) {
                sources.push(path);
            }
        }
        sources.sort();
        Ok(sources)
    }

    /// Whether a file has something to do with what is built: not what building makes.
    pub(super) fn is_source(&self, path: &Path) -> bool {
        const MADE: [&str; 4] = [SCRATCH, "target", "node_modules", "__pycache__"];
        let Ok(within) = path.strip_prefix(&self.folder) else {
            return false;
        };
        // What begins with a dot may be a file on its way to where it is put.
        let is_made = within.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.starts_with('.') || MADE.contains(&part.as_ref())
        });
        let is_result = within.extension().is_some_and(|ending| ending == "wasm")
            || within == Path::new("Cargo.lock");
        !is_made && !is_result
    }
}

/// A file that a language is told by. The first that is there decides.
const MARKS: [(&str, Language, Kind); 14] = [
    ("src/lib.rs", Language::Rust, Kind::Component),
    ("src/main.rs", Language::Rust, Kind::Command),
    ("app.py", Language::Python, Kind::Component),
    ("main.ts", Language::Assemblyscript, Kind::Command),
    ("handler.ts", Language::Ts, Kind::Component),
    ("plugin.ts", Language::Ts, Kind::Component),
    ("plugin.js", Language::Js, Kind::Component),
    ("go.mod", Language::Go, Kind::Command),
    ("handler.zig", Language::Zig, Kind::Component),
    ("handler.c", Language::C, Kind::Component),
    ("handler.cpp", Language::Cpp, Kind::Component),
    ("main.zig", Language::Zig, Kind::Command),
    ("main.c", Language::C, Kind::Command),
    ("main.cpp", Language::Cpp, Kind::Command),
];

fn recognise(has: &dyn Fn(&str) -> bool) -> Option<(Language, Kind)> {
    let (_, language, kind) = MARKS.into_iter().find(|(file, ..)| has(file))?;
    Some((language, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_building_makes_is_no_source() {
        let project = Project {
            folder: PathBuf::from("/words"),
            name: "words".parse().unwrap(),
            language: Language::C,
            kind: Kind::Command,
        };
        for source in ["main.c", "words.toml", "part/more.c"] {
            assert!(project.is_source(&project.folder.join(source)), "{source}");
        }
        // `--out` may name a folder of the project.
        for made in [
            "words.wasm",
            "build/made.wasm",
            "dist/.words.wasm.7.part",
            ".git/index",
        ] {
            assert!(!project.is_source(&project.folder.join(made)), "{made}");
        }
    }
}
