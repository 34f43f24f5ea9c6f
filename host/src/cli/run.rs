//! `scutwork run`: one task here and now, without a queue, in the same sandbox and limits.

mod overrides;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::submit::payload::Payload;
use super::submit::{check_size, parse_header};
use super::worker::{plugin_rules, sandbox};
use super::{Exit, Format, Global, Stopped, output};
use crate::broker::{Message, Record};
use crate::config::Config;
use crate::event::{Event, Level, Observer, Observers};
use crate::name::PluginName;
use crate::outcome::{Failure, Outcome};
use crate::plugin::registry::Directory;
use crate::plugin::{Plugin, Refused};
use crate::sandbox::{Cancel, Finished, Job, Sandbox};
use crate::task::Task;
use crate::units::{show_duration, show_size};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The plugin: a name in the plugin directory, or a file (a path, or anything that ends in .wasm)
    #[arg(required_unless_present = "dead")]
    plugin: Option<String>,
    /// The payload: a text, @FILE, or - for stdin
    #[arg(
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    payload: String,
    /// A header for the plugin; may be given again
    #[arg(long = "header", value_name = "K=V", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// What the payload is, for example application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Which attempt the plugin is told that this is
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Say what the run cost
    #[arg(long)]
    stats: bool,
    /// Run it so often, each in a fresh sandbox, and say how long the runs took; only the first is heard
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Set a value of the manifest for this run, for example limits.memory=128MiB; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = overrides::parse)]
    overrides: Vec<overrides::Override>,
    /// Take the task from this dead letter of the queue, payload and headers as they are; it stays there
    #[arg(long, value_name = "ID", conflicts_with_all = ["payload", "headers", "content_type"])]
    dead: Option<String>,
}

impl RunArgs {
    /// A file run on a payload, and nothing else asked for.
    pub(super) fn for_file(file: &Path, payload: &str) -> RunArgs {
        RunArgs {
            plugin: Some(file.display().to_string()),
            payload: payload.to_owned(),
            headers: Vec::new(),
            content_type: None,
            attempt: 1,
            stats: true,
            repeat: 1,
            overrides: Vec::new(),
            dead: None,
        }
    }
}

/// Runs the command.
pub(super) async fn run(global: &Global, config: Config, args: RunArgs) -> Result<Exit, Stopped> {
    let mut message = message(&config, &args).await?;
    check_size(message.body.len() as u64, config.rules.max_payload)?;
    let sandbox = Arc::new(sandbox(&config, 1)?);
    let named = args.plugin.as_deref().or(message.plugin.as_deref());
    let named = named.unwrap_or(config.rules.default_plugin.as_str());
    let mut plugin = find(&config, &sandbox, named)?;
    if !args.overrides.is_empty() {
        plugin = overrides::apply(&plugin, &args.overrides, &config.ceiling)?;
    }
    for lowered in &plugin.manifest.lowered {
        output::say(&format!("{}: {lowered}", plugin.name));
    }
    message.plugin = Some(plugin.name.to_string());
    let task = Task::decode(&mut message, &config.rules).map_err(Stopped::usage)?;
    let job = Job {
        prepared: &plugin.prepared,
        task: &task,
        grants: &plugin.manifest.grants,
        limits: plugin.manifest.limits,
        max_attempts: plugin.manifest.retry.max_attempts,
    };
    let bar = progress_bar(global);
    let observers = Observers::new(vec![Box::new(Onlooker {
        bar: bar.clone(),
        quiet: global.quiet > 0,
    })]);
    let mut finished = sandbox.run(job, &observers, &Cancel::new()).await;
    let mut walls = vec![finished.usage.wall];
    // The first that is not done is worth more than the others' times. They say what the first said.
    while walls.len() < args.repeat as usize && matches!(finished.outcome, Outcome::Done(_)) {
        let nobody = Observers::default();
        finished = sandbox.run(job, &nobody, &Cancel::new()).await;
        walls.push(finished.usage.wall);
    }
    bar.finish_and_clear();
    let times = (args.repeat > 1).then(|| Times::of(walls));
    if let Some(times) = &times
        && global.output == Format::Text
    {
        times.say(args.repeat);
    }
    if args.stats {
        let usage = finished.usage;
        output::say(&format!(
            "wall {}, cpu {}, peak memory {}",
            precisely(usage.wall),
            precisely(usage.cpu),
            show_size(usage.peak_memory)
        ));
    }
    Ok(match global.output {
        Format::Json => show_json(&task, &finished, times.as_ref()),
        Format::Text => show_text(&finished),
    })
}

/// The task's message: of the arguments, or a dead letter's.
async fn message(config: &Config, args: &RunArgs) -> Result<Message, Stopped> {
    let record = Record {
        attempt: args.attempt,
        ..Record::default()
    };
    if let Some(id) = &args.dead {
        let letter = super::dead::find(config, id).await?;
        return Ok(Message {
            record,
            ..letter.message
        });
    }
    Ok(Message {
        content_type: args.content_type.clone(),
        headers: args.headers.clone(),
        body: Payload::whole(&args.payload)?,
        record,
        ..Message::default()
    })
}

/// How long many runs took: half of them were no longer than p50, and all but a hundredth no longer than p99.
struct Times {
    runs: usize,
    p50: Duration,
    p99: Duration,
    longest: Duration,
}

impl Times {
    fn of(mut walls: Vec<Duration>) -> Times {
        walls.sort_unstable();
        let at = |share: usize| walls[(walls.len() - 1) * share / 100];
        Times {
            runs: walls.len(),
            p50: at(50),
            p99: at(99),
            longest: at(100),
        }
    }

    fn say(&self, asked: u32) {
        let of = match self.runs {
            runs if runs == asked as usize => String::new(),
            _ => format!(" of {asked}"),
        };
        output::say(&format!(
            "{}{of} runs: p50 {}, p99 {}, longest {}",
            self.runs,
            precisely(self.p50),
            precisely(self.p99),
            precisely(self.longest)
        ));
    }

    fn as_json(&self) -> Value {
        json!({
            "runs": self.runs,
            "p50_ms": self.p50.as_secs_f64() * 1e3,
            "p99_ms": self.p99.as_secs_f64() * 1e3,
            "longest_ms": self.longest.as_secs_f64() * 1e3,
        })
    }
}

/// The plugin that a worker would serve by this name, or the one in this file.
fn find(config: &Config, sandbox: &Arc<Sandbox>, named: &str) -> Result<Arc<Plugin>, Stopped> {
    if named.ends_with(".wasm") || named.contains('/') {
        let path = Path::new(named);
        if !path.exists() {
            return Err(Stopped::not_found(format!("no file {named}")));
        }
        return find_file(config, sandbox, path);
    }
    let name: PluginName = named.parse().map_err(Stopped::usage)?;
    let directory = directory(config)?;
    let path = directory.join(format!("{name}.wasm"));
    if path.symlink_metadata().is_ok() {
        return find_file(config, sandbox, &path);
    }
    match Plugin::built_in(&name, sandbox.clone(), &plugin_rules(config)) {
        Some(plugin) => plugin.map_err(refused),
        None => Err(Stopped::not_found(unknown(&name, &directory))),
    }
}

/// The plugin in a file, its manifest beside it.
pub(super) fn find_file(
    config: &Config,
    sandbox: &Arc<Sandbox>,
    path: &Path,
) -> Result<Arc<Plugin>, Stopped> {
    Plugin::from_file(path, sandbox.clone(), &plugin_rules(config)).map_err(refused)
}

fn directory(config: &Config) -> Result<PathBuf, Stopped> {
    match &config.plugins {
        Directory::Named(path) if !path.is_dir() => Err(Stopped::not_found(format!(
            "plugin directory {} does not exist; make it with mkdir -p, or name another with --plugins",
            path.display()
        ))),
        Directory::Named(path) | Directory::Usual(path) => Ok(path.clone()),
    }
}

fn refused(refused: Refused) -> Stopped {
    Stopped::new(
        Exit::No,
        anyhow::anyhow!("{}: {}", refused.file, refused.reason),
    )
}

fn unknown(name: &PluginName, directory: &Path) -> String {
    let mut known: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".wasm")
                .map(str::to_owned)
        })
        .chain(["dots".to_owned()])
        .collect();
    known.sort_by_key(|other| strsim::damerau_levenshtein(other, name.as_str()));
    known.truncate(5);
    let built = format!("{name}/{name}.wasm");
    let is_built = Path::new(&built).is_file();
    let or = if is_built {
        format!("run {built}, which is here")
    } else {
        format!("use one of: {}", known.join(", "))
    };
    format!(
        "no plugin `{name}` in {}; put {name}.wasm there, or {or}",
        directory.display(),
    )
}

/// Shows what the guest says while it runs.
struct Onlooker {
    bar: ProgressBar,
    quiet: bool,
}

impl Observer for Onlooker {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Progress {
                done,
                total,
                message,
                ..
            } => {
                let message = output::one_line(message, 60);
                if self.bar.is_hidden() && !self.quiet {
                    output::say(format!("progress: {done}/{total} {message}").trim_end());
                }
                self.bar.set_length(u64::from(*total));
                self.bar.set_position(u64::from(*done));
                self.bar.set_message(message);
            }
            Event::Line {
                level,
                message,
                fields,
                ..
            } if !self.quiet => {
                let mut line = format!("{}: {}", word(*level), output::one_line(message, 2000));
                for (name, value) in *fields {
                    let (name, value) =
                        (output::one_line(name, 100), output::one_line(value, 2000));
                    line.push_str(&format!(" {name}={value}"));
                }
                self.bar.suspend(|| output::say(&line));
            }
            Event::Line { .. }
            | Event::Broker(_)
            | Event::Plugin(_)
            | Event::Started { .. }
            | Event::Finished { .. }
            | Event::Settled { .. }
            | Event::NotSettled { .. }
            | Event::Repeated { .. }
            | Event::Prefetch { .. }
            | Event::Draining { .. } => {}
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

fn progress_bar(global: &Global) -> ProgressBar {
    if global.quiet > 0 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn show_text(finished: &Finished) -> Exit {
    match &finished.outcome {
        Outcome::Done(done) => {
            output::body(&done.body);
            Exit::Done
        }
        Outcome::Failed(failure) => {
            output::complain(&format!(
                "{}: {}",
                verdict(failure),
                output::readable(&failure.to_string())
            ));
            Exit::No
        }
        Outcome::Interrupted => {
            output::complain("the run was interrupted");
            Exit::No
        }
    }
}

/// What a worker would make of it.
fn verdict(failure: &Failure) -> String {
    match failure {
        Failure::PluginError {
            delay: Some(delay), ..
        } => {
            format!("the plugin asks for a retry in {}", show_duration(*delay))
        }
        Failure::PluginError { .. } => "the plugin asks for a retry".to_owned(),
        Failure::Rejected { .. } => "the plugin rejects the task".to_owned(),
        Failure::Trapped { .. } => "the plugin trapped".to_owned(),
        Failure::LimitExceeded { .. } => "the plugin was ended".to_owned(),
        Failure::UnknownPlugin { .. } | Failure::BadTask(_) | Failure::Crashed { .. } => {
            "no task".to_owned()
        }
    }
}

fn show_json(task: &Task, finished: &Finished, times: Option<&Times>) -> Exit {
    let usage = finished.usage;
    let mut shown = json!({
        "task": task.id,
        "plugin": task.plugin.as_str(),
        "attempt": task.attempt,
        "usage": {
            "wall_ms": usage.wall.as_secs_f64() * 1e3,
            "cpu_ms": usage.cpu.as_secs_f64() * 1e3,
            "peak_memory": usage.peak_memory,
        },
    });
    if let Some(times) = times {
        shown["times"] = times.as_json();
    }
    let (exit, more) = match &finished.outcome {
        Outcome::Done(done) => (
            Exit::Done,
            json!({
                "outcome": "done",
                "content_type": done.content_type,
                "body": output::bytes_for_json(&done.body),
            }),
        ),
        Outcome::Failed(failure) => (
            Exit::No,
            json!({
                "outcome": "failed",
                "reason": failure.kind(),
                "code": failure.code(),
                "error": failure.to_string(),
            }),
        ),
        Outcome::Interrupted => (Exit::No, json!({ "outcome": "interrupted" })),
    };
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    output::json(&shown);
    exit
}

fn precisely(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}
