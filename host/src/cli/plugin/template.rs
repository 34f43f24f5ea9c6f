//! [`Template`]: the files that a new plugin begins with. They lie as plain files in `host/templates`,
//! and are part of the program.

use super::language::{Kind, Language};
use crate::name::PluginName;

/// A file of a template: where it goes, and what is in it.
type File = (&'static str, &'static str);

/// The files of one folder under `host/templates`.
macro_rules! folder {
    ($folder:literal: $($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../templates/", $folder, "/", $file)))),*]
    };
}

/// What every plugin has.
const SHARED: &[File] = folder!("shared": "{{name}}.toml", "sample.txt");

/// The contract, for those that are built against it.
const WIT: File = ("wit/task.wit", include_str!("../../../../wit/task.wit"));

/// The library for plugins in Rust, whole: it is on no registry.
const RUST_LIBRARY: &[File] = &[
    (
        "sdk/Cargo.toml",
        include_str!("../../../../plugins/sdk/Cargo.toml"),
    ),
    (
        "sdk/src/lib.rs",
        include_str!("../../../../plugins/sdk/src/lib.rs"),
    ),
    (
        "sdk/src/bindings.rs",
        include_str!("../../../../plugins/sdk/src/bindings.rs"),
    ),
    (
        "sdk/src/control.rs",
        include_str!("../../../../plugins/sdk/src/control.rs"),
    ),
    (
        "sdk/src/failure.rs",
        include_str!("../../../../plugins/sdk/src/failure.rs"),
    ),
    (
        "sdk/src/log.rs",
        include_str!("../../../../plugins/sdk/src/log.rs"),
    ),
    (
        "sdk/src/output.rs",
        include_str!("../../../../plugins/sdk/src/output.rs"),
    ),
    (
        "sdk/src/task.rs",
        include_str!("../../../../plugins/sdk/src/task.rs"),
    ),
];

/// The contract in C, as wit-bindgen writes it, with a few functions around it.
const BINDINGS: &[File] = &[
    (
        "bindings/plugin.c",
        include_str!("../../../templates/bindings/plugin.c"),
    ),
    (
        "bindings/plugin.h",
        include_str!("../../../templates/bindings/plugin.h"),
    ),
    (
        "bindings/scutwork.c",
        include_str!("../../../templates/bindings/scutwork.c"),
    ),
    (
        "bindings/scutwork.h",
        include_str!("../../../templates/bindings/scutwork.h"),
    ),
];

/// What JavaScript and TypeScript are joined to the contract with.
const JAVASCRIPT: &[File] = folder!("javascript": "plugin.js", "scutwork.js", ".gitignore");

/// The test of a command that builds for the author's machine too.
const COMMAND: &[File] = folder!("command": "test.sh");

/// What a plugin of one language and kind begins with.
pub(super) struct Template {
    parts: Vec<&'static [File]>,
    has_wit: bool,
}

impl Template {
    /// The template of a language. Those that make one kind alone have one template.
    pub(super) fn of(language: Language, kind: Kind) -> Template {
        let own: &[&'static [File]] = match (language, kind) {
            (Language::Rust, Kind::Component) => &[
                folder!("rust": "Cargo.toml", "src/lib.rs", "README.md", ".gitignore"),
                RUST_LIBRARY,
            ],
            (Language::Rust, Kind::Command) => {
                &[folder!("rust-command": "Cargo.toml", "src/main.rs", "README.md", ".gitignore")]
            }
            (Language::Python, _) => &[folder!(
                "python": "plugin.py", "scutwork.py", "app.py", "test_plugin.py", "README.md",
                "requirements.txt", ".gitignore"
            )],
            (Language::Js, _) => &[
                folder!("js": "handler.js", "handler.test.js", "package.json", "README.md"),
                JAVASCRIPT,
            ],
            (Language::Ts, _) => &[
                folder!(
                    "ts": "handler.ts", "handler.test.js", "package.json", "tsconfig.json",
                    "README.md"
                ),
                JAVASCRIPT,
            ],
            (Language::C, Kind::Component) => &[
                folder!("c": "handler.c", "test/handler.c", "README.md", ".gitignore"),
                BINDINGS,
            ],
            (Language::C, Kind::Command) => &[
                folder!("c-command": "main.c", "README.md", ".gitignore"),
                COMMAND,
            ],
            (Language::Zig, Kind::Component) => &[
                folder!("zig": "handler.zig", "README.md", ".gitignore"),
                BINDINGS,
            ],
            (Language::Zig, Kind::Command) => {
                &[folder!("zig-command": "main.zig", "README.md", ".gitignore")]
            }
            (Language::Go, _) => &[folder!(
                "go": "main.go", "main_test.go", "go.mod", "README.md", ".gitignore"
            )],
            (Language::Cpp, Kind::Component) => &[
                folder!("cpp": "handler.cpp", "test/handler.cpp", "README.md", ".gitignore"),
                BINDINGS,
            ],
            (Language::Cpp, Kind::Command) => &[
                folder!("cpp-command": "main.cpp", "README.md", ".gitignore"),
                COMMAND,
            ],
            (Language::Assemblyscript, _) => &[folder!(
                "assemblyscript": "handler.ts", "handler.test.js", "main.ts", "package.json",
                "README.md", ".gitignore"
            )],
        };
        Template {
            parts: own.iter().copied().chain([SHARED]).collect(),
            // Rust has it in its library.
            has_wit: kind == Kind::Component && language != Language::Rust,
        }
    }

    /// Its files for a plugin of this name.
    pub(super) fn files(&self, name: &PluginName) -> Vec<(String, String)> {
        let wit = self.has_wit.then_some(&WIT);
        let files = self.parts.iter().copied().flatten().chain(wit);
        files
            .map(|(path, text)| (fill(path, name), fill(text, name)))
            .collect()
    }
}

fn fill(text: &str, name: &PluginName) -> String {
    text.replace("{{name}}", name.as_str())
        .replace("{{package}}", &package(name))
}

/// Names that a package manager keeps for itself: cargo's folders and npm's, and the library that a plugin
/// in Rust has a copy of.
const KEPT: [&str; 6] = [
    "build",
    "deps",
    "examples",
    "incremental",
    "node_modules",
    "scutwork-plugin",
];

/// A name that every language's packages may have: lower case, no dot, a letter first, nobody else's.
fn package(name: &PluginName) -> String {
    let package = name.as_str().to_ascii_lowercase().replace('.', "-");
    let begins = package.starts_with(|first: char| first.is_ascii_alphabetic());
    if begins && !KEPT.contains(&package.as_str()) {
        package
    } else {
        format!("plugin-{package}")
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn no_template_leaves_a_gap_unfilled_or_a_file_out() {
        let name: PluginName = "2.Thumb".parse().unwrap();
        for language in Language::value_variants() {
            for command in [false, true] {
                let Ok(kind) = language.kind(command) else {
                    continue;
                };
                let files = Template::of(*language, kind).files(&name);
                for expected in ["2.Thumb.toml", "README.md", "sample.txt", ".gitignore"] {
                    assert!(
                        files.iter().any(|(path, _)| path == expected),
                        "{language:?} has no {expected}"
                    );
                }
                for (path, text) in &files {
                    assert!(!path.contains("{{") && !text.contains("{{name"), "{path}");
                }
            }
        }
    }

    #[test]
    fn a_package_is_named_as_every_language_allows() {
        let named = |name: &str| package(&name.parse().unwrap());
        assert_eq!(named("thumb"), "thumb");
        assert_eq!(named("2.Thumb"), "plugin-2-thumb");
        assert_eq!(named("Build"), "plugin-build");
    }
}
