//! What a worker logs: events as lines on stderr, for people or as JSON.

use std::io::IsTerminal;
use std::time::Duration;

use tracing::{debug, error, info, trace, warn};
use tracing_subscriber::EnvFilter;

use super::{Format, Global, output};
use crate::broker::Notice;
use crate::event::{Event, Level, Observer, PluginEvent, Repeat, Run};
use crate::outcome::Usage;
use crate::settlement::Settlement;
use crate::units::{show_duration, show_size};

/// The longest text from elsewhere in one log line, in characters.
const LINE: usize = 2000;

/// Starts logging for the whole process. `RUST_LOG` has the last word on what is said.
pub(super) fn start(global: &Global) {
    // The client library logs every answer that is no, also those that are asked for.
    let level = match (global.quiet, global.verbose) {
        (0, 0) => "warn,lapin=off,scutwork=info",
        (0, 1) => "info,lapin=off,scutwork=debug",
        (0, _) => "debug,scutwork=trace",
        (1, _) => "warn,lapin=off",
        (_, _) => "error,lapin=off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match global.output {
        Format::Json => builder.json().flatten_event(true).init(),
        Format::Text => builder.with_ansi(has_colours(global)).init(),
    }
}

/// Whether stderr takes colours.
pub(super) fn has_colours(global: &Global) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !global.no_color && !refused && std::io::stderr().is_terminal()
}

/// Writes every event to the log.
pub(super) struct LogObserver;

impl Observer for LogObserver {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Broker(notice) => tell_notice(notice),
            Event::Plugin(event) => tell_plugin(event),
            Event::Started {
                run:
                    Run {
                        task,
                        plugin,
                        attempt,
                    },
                queue,
            } => {
                debug!(task, plugin, attempt, %queue, "started");
            }
            Event::Progress {
                run,
                done,
                total,
                message,
            } => {
                let message = output::one_line(message, LINE);
                debug!(
                    task = run.task,
                    plugin = run.plugin,
                    done,
                    total,
                    "{message}"
                );
            }
            Event::Line {
                run,
                level,
                message,
                fields,
            } => tell_line(run, *level, message, fields),
            Event::Finished { run, outcome, .. } => {
                trace!(task = run.task, plugin = run.plugin, ?outcome, "finished");
            }
            Event::Settled {
                run,
                settlement,
                usage,
                ..
            } => tell_settled(run, settlement, *usage),
            Event::NotSettled { run, error } => {
                let error = output::one_line(error, LINE);
                warn!(task = run.task, plugin = run.plugin, "not settled: {error}");
            }
            Event::Repeated { run, repeat } => {
                let (task, plugin, attempt) = (run.task, run.plugin, run.attempt);
                match repeat {
                    Repeat::Running => warn!(
                        task,
                        plugin,
                        attempt,
                        "delivered again while it runs: not run twice, its end settles this delivery"
                    ),
                    Repeat::Ended => info!(
                        task,
                        plugin,
                        attempt,
                        "delivered again after it ran: not run again, settled by how that ended"
                    ),
                }
            }
            Event::Prefetch { queue, prefetch } => {
                debug!(%queue, prefetch, "prefetch changed");
            }
            Event::Draining { running, grace } => {
                info!(
                    running,
                    grace = show_duration(*grace),
                    "stopping: no more tasks are taken"
                );
            }
        }
    }
}

/// Says what a broker has to say.
pub(super) fn tell_notice(notice: &Notice) {
    match notice {
        Notice::Connected(queue) => info!("taking tasks from queue {queue}"),
        Notice::Paused(queue) => {
            info!("queue {queue} is paused: no task is taken from it until scutwork queue resume");
        }
        Notice::Disconnected(queue, why) => {
            warn!(
                "not taking tasks from queue {queue}: {}",
                output::one_line(why, LINE)
            );
        }
        Notice::Blocked(why) => {
            warn!(
                "the broker holds publishing back: {}",
                output::one_line(why, LINE)
            );
        }
        Notice::Unblocked => info!("the broker takes messages again"),
        // It may name what a message says.
        Notice::Warning(text) => warn!("{}", output::one_line(text, LINE)),
    }
}

fn tell_plugin(event: &PluginEvent) {
    match event {
        PluginEvent::Added {
            name,
            digest,
            compiled_in,
        } => {
            info!(plugin = %name, digest = short(digest), compiled_in = show_duration(*compiled_in), "plugin serves");
        }
        PluginEvent::Replaced {
            name,
            digest,
            compiled_in,
        } => {
            info!(plugin = %name, digest = short(digest), compiled_in = show_duration(*compiled_in), "plugin replaced");
        }
        PluginEvent::Removed { name } => info!(plugin = %name, "plugin removed"),
        PluginEvent::Warned { file, warning } => {
            warn!(file, "{}", output::one_line(warning, LINE));
        }
        PluginEvent::Refused {
            file,
            reason,
            still_serving,
        } => {
            warn!(
                file,
                still_serving,
                "plugin refused: {}",
                output::one_line(reason, LINE)
            );
        }
    }
}

fn tell_line(run: &Run<'_>, level: Level, message: &str, fields: &[(String, String)]) {
    let Run { task, plugin, .. } = run;
    let message = output::one_line(message, LINE);
    let mut text = String::new();
    for (name, value) in fields {
        text.push_str(&format!(
            " {}={}",
            output::one_line(name, 100),
            output::one_line(value, LINE)
        ));
    }
    match level {
        Level::Trace => trace!(task, plugin, "{message}{text}"),
        Level::Debug => debug!(task, plugin, "{message}{text}"),
        Level::Info => info!(task, plugin, "{message}{text}"),
        Level::Warn => warn!(task, plugin, "{message}{text}"),
        Level::Error => error!(task, plugin, "{message}{text}"),
    }
}

fn tell_settled(run: &Run<'_>, settlement: &Settlement, usage: Option<Usage>) {
    let Run {
        task,
        plugin,
        attempt,
    } = run;
    let Usage {
        cpu,
        wall,
        peak_memory,
    } = usage.unwrap_or_default();
    // To three digits or so: `41.3ms`, `312.0µs`. Written only for a line that is: every task comes by here.
    let time = |time: Duration| format!("{time:.1?}");
    match settlement {
        Settlement::Done { .. } => info!(
            task,
            plugin,
            attempt,
            wall = time(wall),
            cpu = time(cpu),
            memory = show_size(peak_memory),
            "done"
        ),
        Settlement::Retry { after, reply, .. } => {
            let why = output::one_line(&String::from_utf8_lossy(&reply.body), LINE);
            warn!(
                task,
                plugin,
                attempt,
                wall = time(wall),
                cpu = time(cpu),
                memory = show_size(peak_memory),
                after = show_duration(*after),
                "retry: {why}"
            );
        }
        Settlement::Release { record, .. } if record.on_trial => {
            warn!(
                task,
                plugin, attempt, "suspected: it was there when workers died, and will run alone"
            );
        }
        Settlement::Release { after, .. } if after.is_zero() => {
            info!(task, plugin, attempt, "released");
        }
        Settlement::Release { after, .. } => {
            debug!(
                task,
                plugin,
                attempt,
                after = show_duration(*after),
                "waits: its plugin runs as many tasks as it may"
            );
        }
        // The first time; after that it only says the same again.
        Settlement::Park {
            reply: Some(reply), ..
        } => {
            let why = output::one_line(&String::from_utf8_lossy(&reply.body), LINE);
            warn!(task, plugin, attempt, "parked: {why}");
        }
        Settlement::Park { after, .. } => {
            debug!(
                task,
                plugin,
                attempt,
                after = show_duration(*after),
                "parked"
            );
        }
        Settlement::Dead { letter, .. } => {
            let why = output::one_line(&letter.error, LINE);
            error!(
                task,
                plugin,
                attempt,
                wall = time(wall),
                cpu = time(cpu),
                memory = show_size(peak_memory),
                reason = letter.reason,
                "dead: {why}"
            );
        }
    }
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
