//! Who plays in the demo: the tasks, the plugins they are for, and how each should end.

use std::fs;
use std::io;
use std::path::Path;

use crate::plugin::embedded;

/// One task of the demo.
pub(super) struct Part {
    /// None: the message names no plugin, as the tutorial's do not.
    pub(super) plugin: Option<&'static str>,
    pub(super) payload: &'static str,
    pub(super) ending: Ending,
}

/// How a task should end.
pub(super) enum Ending {
    /// Done, with an output that holds this text.
    Done(&'static str),
    /// Dead for this reason.
    Dead(&'static str),
}

impl Part {
    fn new(plugin: impl Into<Option<&'static str>>, payload: &'static str, ending: Ending) -> Self {
        Part {
            plugin: plugin.into(),
            payload,
            ending,
        }
    }

    /// The plugin's name, as a person reads it.
    pub(super) fn name(&self) -> &'static str {
        self.plugin.unwrap_or("dots")
    }
}

/// What is submitted at the start: the tutorial's messages, and one of each kind of failure.
pub(super) fn opening() -> Vec<Part> {
    vec![
        Part::new(None, "First message.", Ending::Done("1 dot")),
        Part::new(None, "Second message..", Ending::Done("2 dots")),
        Part::new(None, "Third message...", Ending::Done("3 dots")),
        Part::new(None, "Fourth message....", Ending::Done("4 dots")),
        Part::new(None, "Fifth message.....", Ending::Done("5 dots")),
        Part::new("flaky", "2", Ending::Done("")),
        Part::new("picky", "I am not JSON", Ending::Dead("rejected")),
        Part::new("endless", "", Ending::Dead("cpu-limit")),
        Part::new("glutton", "", Ending::Dead("memory-limit")),
        Part::new("../../etc/passwd", "", Ending::Dead("bad-task")),
        Part::new(
            "echo",
            "I came before my plugin",
            Ending::Done("I came before my plugin"),
        ),
    ]
}

/// What is submitted once `echo` serves.
pub(super) fn encore() -> Vec<Part> {
    vec![Part::new(
        "echo",
        "served at once",
        Ending::Done("served at once"),
    )]
}

/// Lays out the plugin directory as it is when the demo starts.
pub(super) fn dress(directory: &Path) -> io::Result<()> {
    const SHORT_RETRY: &str = "[retry]\nbackoff = { initial = \"2s\" }\n";
    const ONE_ATTEMPT: &str =
        "[limits]\ncpu = \"2s\"\nmemory = \"16MiB\"\n[retry]\nmax_attempts = 1\n";
    fs::create_dir(directory)?;
    for (name, wasm, manifest) in [
        ("flaky", embedded::flaky(), SHORT_RETRY),
        ("picky", embedded::picky(), ""),
        ("endless", embedded::endless(), ONE_ATTEMPT),
        ("glutton", embedded::glutton(), ONE_ATTEMPT),
    ] {
        fs::write(directory.join(name).with_extension("toml"), manifest)?;
        drop_in(directory, name, wasm)?;
    }
    Ok(())
}

/// Puts a plugin into the directory, as `cp` would.
pub(super) fn drop_in(directory: &Path, name: &str, wasm: &[u8]) -> io::Result<()> {
    fs::write(directory.join(name).with_extension("wasm"), wasm)
}
