//! [`Language`]: what a plugin is written in, and what each language can build.

use clap::ValueEnum;

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Rust
    Rust,
    /// Python
    #[value(alias = "py")]
    Python,
    /// JavaScript
    #[value(alias = "javascript")]
    Js,
    /// TypeScript
    #[value(alias = "typescript")]
    Ts,
    /// C
    C,
    /// Zig
    Zig,
    /// Go, as a WASI command
    Go,
    /// C++
    #[value(alias = "c++")]
    Cpp,
    /// AssemblyScript, as a WASI command
    Assemblyscript,
}

/// How a plugin has its task: a component of the contract, or a WASI command on stdin and stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A component that exports the handler.
    Component,
    /// A program with a `main`.
    Command,
}

impl Language {
    /// The language as people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::Python => "Python",
            Language::Js => "JavaScript",
            Language::Ts => "TypeScript",
            Language::C => "C",
            Language::Zig => "Zig",
            Language::Go => "Go",
            Language::Cpp => "C++",
            Language::Assemblyscript => "AssemblyScript",
        }
    }

    /// The kind that a new plugin is of.
    ///
    /// # Errors
    /// When the language makes no commands.
    pub(super) fn kind(self, command: bool) -> Result<Kind, String> {
        match self {
            Language::Rust | Language::C | Language::Cpp | Language::Zig if command => {
                Ok(Kind::Command)
            }
            Language::Rust | Language::C | Language::Cpp | Language::Zig => Ok(Kind::Component),
            Language::Go | Language::Assemblyscript => Ok(Kind::Command),
            Language::Python | Language::Js | Language::Ts if command => Err(format!(
                "a {} plugin is made as a component alone; leave --command out",
                self.title()
            )),
            Language::Python | Language::Js | Language::Ts => Ok(Kind::Component),
        }
    }
}
