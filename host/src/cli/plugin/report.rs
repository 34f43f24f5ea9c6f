//! [`Report`]: what is to be said of one plugin file, good and bad, with what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::worker::sandbox;
use super::super::{Format, Global, Stopped, output, run};
use crate::config::Config;
use crate::plugin::Plugin;
use crate::plugin::anatomy::Anatomy;
use crate::sandbox::Grants;
use crate::units::{show_duration, show_size};

/// What is to be said of a file.
pub(super) struct Report {
    pub(super) file: PathBuf,
    pub(super) size: u64,
    pub(super) anatomy: Option<Anatomy>,
    /// What it became, as a worker would serve it.
    pub(super) plugin: Option<Arc<Plugin>>,
    ready_in: Duration,
    /// Why it would not serve, each with what to do.
    problems: Vec<String>,
    /// What it may want to reach, and whether it may.
    wishes: Vec<Wish>,
}

/// A capability that a plugin may use.
struct Wish {
    capability: &'static Capability,
    is_granted: bool,
}

/// Something that a plugin can be granted, or that no plugin is.
struct Capability {
    what: &'static str,
    /// The interface that a component imports for it, without its version.
    interface: &'static str,
    /// What the functions that a core module imports for it begin with.
    functions: &'static str,
    /// Whether every toolchain links it in, so that it tells nothing of the plugin.
    is_usual: bool,
    is_granted: fn(&Grants) -> bool,
    /// What to write into the manifest. None: no plugin is granted it.
    lines: Option<&'static str>,
}

const CAPABILITIES: &[Capability] = &[
    Capability {
        what: "HTTP requests",
        interface: "wasi:http/outgoing-handler",
        functions: "(none)",
        is_usual: false,
        is_granted: |grants| !grants.origins.is_empty(),
        lines: Some("[http]\nallow = [\"https://api.example.com\"]"),
    },
    Capability {
        what: "files",
        interface: "wasi:filesystem",
        functions: "wasi_snapshot_preview1::path_",
        is_usual: false,
        is_granted: |grants| !grants.directories.is_empty(),
        lines: Some("[files]\n\"/data\" = { path = \"/srv/data\", access = \"read\" }"),
    },
    Capability {
        what: "environment variables",
        interface: "wasi:cli/environment",
        functions: "wasi_snapshot_preview1::environ_",
        is_usual: true,
        is_granted: |grants| !grants.environment.is_empty(),
        lines: Some("[env]\nREGION = \"eu\""),
    },
    Capability {
        what: "sockets",
        interface: "wasi:sockets",
        functions: "wasi_snapshot_preview1::sock_",
        is_usual: false,
        is_granted: |_| false,
        lines: None,
    },
];

impl Report {
    /// Looks at a file as a worker would load it, its manifest beside it.
    pub(super) fn of(config: &Config, file: &Path) -> Result<Report, Stopped> {
        let wasm = fs::read(file).map_err(|error| {
            Stopped::not_found(format!("cannot read {}: {error}", file.display()))
        })?;
        let anatomy = Anatomy::of(&wasm).ok();
        let sandbox = Arc::new(sandbox(config, 1)?);
        let began = Instant::now();
        let loaded = run::find_file(config, &sandbox, file);
        let ready_in = began.elapsed();
        let mut problems = Vec::new();
        let plugin = match loaded {
            Ok(plugin) => Some(plugin),
            Err(refused) => {
                let refused = format!("{:#}", refused.reason);
                problems.push(refused.clone() + hint(&refused));
                None
            }
        };
        if let (Some(plugin), Some(anatomy)) = (&plugin, &anatomy) {
            let limit = plugin.manifest.limits.memory;
            if anatomy.memory > limit {
                problems.push(format!(
                    "it has {} of memory at its start, and may have {}; raise limits.memory in {}.toml",
                    show_size(anatomy.memory),
                    show_size(limit),
                    plugin.name
                ));
            }
        }
        let wishes = anatomy
            .as_ref()
            .map(|anatomy| wishes(anatomy, plugin.as_deref()))
            .unwrap_or_default();
        Ok(Report {
            file: file.to_owned(),
            size: wasm.len() as u64,
            anatomy,
            plugin,
            ready_in,
            problems,
            wishes,
        })
    }

    /// Whether it would not serve.
    pub(super) fn is_bad(&self) -> bool {
        !self.problems.is_empty()
    }

    /// How long it took until it could serve, compiling included.
    pub(super) fn compiled_in(&self) -> Option<Duration> {
        self.plugin.as_ref().map(|_| self.ready_in)
    }

    /// What it is, in a few words.
    pub(super) fn kind(&self) -> String {
        let Some(anatomy) = &self.anatomy else {
            return "no WebAssembly".to_owned();
        };
        let form = if anatomy.is_component {
            "component"
        } else {
            "core module"
        };
        match (anatomy.contract(), &self.plugin) {
            (Some(version), _) => format!("plugin for scutwork:task@{version}, a {form}"),
            (None, Some(_)) => format!("WASI command, a {form}"),
            (None, None) => form.to_owned(),
        }
    }

    /// Prints it as the result of a command.
    pub(super) fn show(&self, global: &Global) {
        if global.output == Format::Json {
            return output::json(&self.as_json());
        }
        let file = self.file.display();
        if self.is_bad() {
            for problem in &self.problems {
                output::line(&format!("problem: {}", output::readable(problem)));
            }
        } else {
            output::line(&format!("{file} is good to serve"));
        }
        for (name, value) in self.facts() {
            output::line(&format!("  {name:9} {value}"));
        }
        self.remark();
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("kind", self.kind()), ("size", show_size(self.size))];
        if let Some(plugin) = &self.plugin {
            facts.push(("ready in", show_duration(self.ready_in)));
            let memory = self.anatomy.as_ref().map_or(0, |anatomy| anatomy.memory);
            let limit = plugin.manifest.limits.memory;
            let memory = format!(
                "{} at the start, of {}",
                show_size(memory),
                show_size(limit)
            );
            facts.push(("memory", memory));
        }
        facts
    }

    /// Says on stderr what it may want and is not granted: a toolchain imports much that nobody calls, so
    /// it is no problem by itself.
    fn remark(&self) {
        let file = self.file.with_extension("toml");
        let file = file.file_name().unwrap_or_default().display();
        for lowered in self
            .plugin
            .iter()
            .flat_map(|plugin| &plugin.manifest.lowered)
        {
            output::say(&format!("note: {lowered}"));
        }
        let ungranted = self.wishes.iter().filter(|wish| !wish.is_granted);
        for Wish { capability, .. } in ungranted.filter(|wish| !wish.capability.is_usual) {
            let what = capability.what;
            output::say(&match capability.lines {
                Some(lines) => format!(
                    "note: {what} are linked in and not granted; if it uses them, write in {file}: {}",
                    lines.replace('\n', " ")
                ),
                None => format!("note: {what} are linked in, and no plugin is granted them"),
            });
        }
    }

    /// All of it for a program.
    pub(super) fn as_json(&self) -> Value {
        let anatomy = self.anatomy.as_ref();
        let wishes = self.wishes.iter().map(|wish| {
            let Capability { what, lines, .. } = wish.capability;
            json!({ "what": what, "granted": wish.is_granted, "add": lines })
        });
        json!({
            "file": self.file,
            "ok": !self.is_bad(),
            "problems": self.problems,
            "kind": self.kind(),
            "contract": anatomy.and_then(Anatomy::contract),
            "size": self.size,
            "ready_ms": self.compiled_in().map(|took| took.as_secs_f64() * 1e3),
            "memory_at_start": anatomy.map(|anatomy| anatomy.memory),
            "imports": anatomy.map(|anatomy| &anatomy.imports),
            "capabilities": wishes.collect::<Vec<_>>(),
        })
    }
}

/// What the author most likely did, where more is to be told than why it was refused.
fn hint(refused: &str) -> &'static str {
    if refused.contains("component model async") {
        "; it was built with the asynchronous calls of WASI 0.3: with jco, add --backend-qjs-disable-async"
    } else {
        ""
    }
}

/// What a file imports of the capabilities, and whether its manifest as it was read grants any of each: a
/// section that is there may grant nothing.
fn wishes(anatomy: &Anatomy, plugin: Option<&Plugin>) -> Vec<Wish> {
    let is_wanted = |capability: &&Capability| {
        let of_module = |import: &String| import.starts_with(capability.functions);
        anatomy.wants(capability.interface) || anatomy.imports.iter().any(of_module)
    };
    CAPABILITIES
        .iter()
        .filter(is_wanted)
        .map(|capability| Wish {
            capability,
            is_granted: plugin.is_some_and(|plugin| {
                let grants = &plugin.manifest.grants;
                (capability.is_granted)(grants)
            }),
        })
        .collect()
}
