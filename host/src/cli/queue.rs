//! `scutwork queue`: what an operator sees of queues, and does to them as a whole.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, Format, Global, Stopped, connect, log, output};
use crate::broker::{Broker, Depth, Part};
use crate::config::Config;
use crate::name::QueueName;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Show how many tasks the queues have in each state, and whether they are paused
    Status,
    /// Let no worker take tasks from the queues, across restarts, until they are resumed
    Pause,
    /// Let workers take tasks from the queues again
    Resume,
    /// Remove tasks for good: those that are ready, unless told otherwise
    Purge(PurgeArgs),
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PurgeArgs {
    /// Remove those that wait for a worker; the default when nothing else is chosen
    #[arg(long)]
    ready: bool,
    /// Remove those that are due later: retries, parked tasks and delayed submits
    #[arg(long)]
    delayed: bool,
    /// Remove the dead letters
    #[arg(long)]
    dead: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs `queue`.
pub(super) async fn queue(
    global: &Global,
    config: &Config,
    command: QueueCommand,
) -> Result<Exit, Stopped> {
    let broker = connect(&config.broker, Arc::new(|notice| log::tell_notice(&notice))).await?;
    let done = match command {
        QueueCommand::Status => status(global, &*broker, &config.queues).await,
        QueueCommand::Pause => set_paused(global, &*broker, &config.queues, true).await,
        QueueCommand::Resume => set_paused(global, &*broker, &config.queues, false).await,
        QueueCommand::Purge(args) => purge(global, &*broker, &config.queues, args).await,
    };
    broker.close().await;
    done
}

async fn status(
    global: &Global,
    broker: &dyn Broker,
    queues: &[QueueName],
) -> Result<Exit, Stopped> {
    let mut found = Vec::new();
    for queue in queues {
        let is_paused = broker.is_paused(queue).await?;
        found.push((queue, broker.depth(queue).await?, is_paused));
    }
    match global.output {
        Format::Json => {
            for (queue, depth, is_paused) in &found {
                output::json(&as_json(queue, depth.as_ref(), *is_paused));
            }
        }
        Format::Text => {
            let rows = found.iter().filter_map(|(queue, depth, is_paused)| {
                Some(as_row(queue, depth.as_ref()?, *is_paused))
            });
            let table: Vec<_> = std::iter::once(HEAD.map(str::to_owned))
                .chain(rows)
                .collect();
            if table.len() > 1 {
                output::table(&table);
            }
        }
    }
    let missing: Vec<_> = found
        .iter()
        .filter(|(_, depth, _)| depth.is_none())
        .collect();
    for (queue, _, is_paused) in &missing {
        output::complain(&absent(queue, *is_paused));
    }
    Ok(if missing.is_empty() {
        Exit::Done
    } else {
        Exit::NotFound
    })
}

const HEAD: [&str; 7] = [
    "QUEUE",
    "READY",
    "RUNNING",
    "DELAYED",
    "DEAD",
    "CONSUMERS",
    "STATE",
];

fn as_row(queue: &QueueName, depth: &Depth, is_paused: bool) -> [String; 7] {
    let known = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    [
        queue.to_string(),
        depth.ready.to_string(),
        known(depth.running),
        depth.delayed.to_string(),
        depth.dead.to_string(),
        known(depth.consumers),
        if is_paused { "paused" } else { "open" }.to_owned(),
    ]
}

fn as_json(queue: &QueueName, depth: Option<&Depth>, is_paused: bool) -> Value {
    let mut value = json!(depth.copied().unwrap_or_default());
    value["queue"] = json!(queue.as_str());
    value["exists"] = json!(depth.is_some());
    value["paused"] = json!(is_paused);
    value
}

fn absent(queue: &QueueName, is_paused: bool) -> String {
    let paused = if is_paused {
        "; it is paused before it is made"
    } else {
        ""
    };
    format!("no queue `{queue}` yet; the first worker or submit makes it{paused}")
}

async fn set_paused(
    global: &Global,
    broker: &dyn Broker,
    queues: &[QueueName],
    is_paused: bool,
) -> Result<Exit, Stopped> {
    for queue in queues {
        broker.set_paused(queue, is_paused).await?;
        match (global.output, is_paused) {
            (Format::Json, _) => output::json(&json!({
                "queue": queue.as_str(),
                "paused": is_paused,
            })),
            (Format::Text, true) => output::line(&format!(
                "paused {queue}: within seconds no worker takes a task from it; what runs goes on"
            )),
            (Format::Text, false) => output::line(&format!("resumed {queue}")),
        }
    }
    Ok(Exit::Done)
}

async fn purge(
    global: &Global,
    broker: &dyn Broker,
    queues: &[QueueName],
    args: PurgeArgs,
) -> Result<Exit, Stopped> {
    let parts = args.parts();
    let mut plan = Vec::new();
    for queue in queues {
        let Some(depth) = broker.depth(queue).await? else {
            return Err(Stopped::not_found(format!(
                "{}; nothing was removed",
                absent(queue, false)
            )));
        };
        plan.extend(
            parts
                .iter()
                .map(|part| (queue, *part, count(&depth, *part))),
        );
    }
    if !args.yes && !is_confirmed(&plan)? {
        output::complain("nothing was removed");
        return Ok(Exit::No);
    }
    for (queue, part, _) in plan {
        let removed = broker.purge(queue, part).await?.unwrap_or_default();
        match global.output {
            Format::Json => output::json(&json!({
                "queue": queue.as_str(),
                "part": word(part),
                "removed": removed,
            })),
            Format::Text => output::line(&format!("removed {removed} {} from {queue}", word(part))),
        }
    }
    Ok(Exit::Done)
}

/// Asks whoever sits at the terminal.
fn is_confirmed(plan: &[(&QueueName, Part, u64)]) -> Result<bool, Stopped> {
    let plan: Vec<String> = plan
        .iter()
        .map(|(queue, part, count)| format!("{count} {} of {queue}", word(*part)))
        .collect();
    let plan = plan.join(", ");
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Stopped::usage(format!(
            "purge would remove {plan} for good; say --yes, since there is no terminal to ask on"
        )));
    }
    output::say(&format!("remove {plan} for good? [y/N]"));
    let mut answer = String::new();
    // What cannot be read is no yes.
    Ok(input.lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

impl PurgeArgs {
    fn parts(self) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.ready || !(self.delayed || self.dead) {
            parts.push(Part::Ready);
        }
        if self.delayed {
            parts.push(Part::Delayed);
        }
        if self.dead {
            parts.push(Part::Dead);
        }
        parts
    }
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Ready => "ready",
        Part::Delayed => "delayed",
        Part::Dead => "dead",
    }
}

fn count(depth: &Depth, part: Part) -> u64 {
    match part {
        Part::Ready => depth.ready,
        Part::Delayed => depth.delayed,
        Part::Dead => depth.dead,
    }
}
