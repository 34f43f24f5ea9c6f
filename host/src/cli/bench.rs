//! `scutwork bench`: what this program costs, each figure beside the bare library's, measured in turn in
//! the same run.

mod amqp;
mod burn;
mod clock;
mod deploy;
mod figures;
mod latency;
mod machine;
mod mixed;
mod sandbox;
mod sleepers;
mod soak;
mod sqlite;

use std::path::Path;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

use self::figures::Row;
use self::machine::Machine;
use super::{Exit, Format, Global, Stopped, WorkerArgs, output};
use crate::broker::Message;
use crate::broker::rabbitmq::RabbitMqOptions;
use crate::broker::sqlite::SqliteOptions;
use crate::config::{BrokerConfig, Config};
use crate::name::QueueName;
use crate::plugin::embedded;
use crate::plugin::registry::Directory;
use crate::task::new_id;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = Bench::All)]
    bench: Bench,
    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Do a tenth of the work: quicker, and noisier
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    pub(super) worker: WorkerArgs,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// All of these; those of AMQP when --broker names a RabbitMQ
    All,
    /// One run of a plugin, beside wasmtime alone
    Sandbox,
    /// A worker on RabbitMQ, beside the client library alone
    Amqp,
    /// A worker on the embedded queue, beside the database alone
    Sqlite,
    /// Ten thousand tasks asleep at once
    Sleepers,
    /// From submit to the start of the task, beside a bare publish and delivery
    Latency,
    /// A plugin of a millisecond beside others that compute for ever
    Mixed,
    /// From a file dropped in to its first task, and a start with a hundred plugins
    Deploy,
    /// Memory after very many tasks
    Soak,
}

const EACH: [Bench; 8] = [
    Bench::Sandbox,
    Bench::Sqlite,
    Bench::Amqp,
    Bench::Latency,
    Bench::Mixed,
    Bench::Deploy,
    Bench::Sleepers,
    Bench::Soak,
];

/// What every bench is told.
struct Stand<'a> {
    config: &'a Config,
    runs: u32,
    quick: bool,
    /// For queues and plugins; removed in the end.
    place: &'a Path,
}

impl Stand<'_> {
    /// So many tasks, or a tenth of them.
    fn tasks(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }

    /// Where RabbitMQ is, if the configuration names one.
    fn rabbitmq(&self) -> Option<&RabbitMqOptions> {
        match &self.config.broker {
            BrokerConfig::RabbitMq(options) => Some(options),
            BrokerConfig::Sqlite(_) => None,
        }
    }

    /// Measures as often as was asked, after a run that warms up and is not counted.
    async fn repeat<T>(
        &self,
        what: &str,
        mut measure: impl AsyncFnMut() -> Result<T, Stopped>,
    ) -> Result<Vec<T>, Stopped> {
        let mut measured = Vec::new();
        for run in 0..=self.runs {
            output::say(&format!(
                "{what}: {}",
                match run {
                    0 => "warming up".to_owned(),
                    run => format!("run {run} of {}", self.runs),
                }
            ));
            let value = measure().await?;
            if run > 0 {
                measured.push(value);
            }
        }
        Ok(measured)
    }

    /// A configuration with a new embedded queue and the plugin `echo`.
    fn embedded(&self) -> Result<Config, Stopped> {
        let folder = tempfile::Builder::new()
            .prefix("queue-")
            .tempdir_in(self.place)
            .context("cannot make a temporary folder")?
            .keep();
        let plugins = folder.join("plugins");
        std::fs::create_dir(&plugins)
            .and_then(|()| std::fs::write(plugins.join("echo.wasm"), embedded::echo()))
            .context("cannot lay out a plugin directory")?;
        let mut config = self.config.clone();
        let mut options = SqliteOptions::new(folder.join("queue.db"));
        if let BrokerConfig::Sqlite(given) = &self.config.broker {
            options.durability = given.durability;
        }
        config.broker = BrokerConfig::Sqlite(options);
        config.plugins = Directory::Named(plugins);
        config.queues = vec![queue()?];
        Ok(config)
    }
}

/// A queue's name that nobody else uses.
fn queue() -> Result<QueueName, Stopped> {
    format!("scutwork-bench-{}", new_id())
        .parse()
        .map_err(Stopped::usage)
}

/// A task that is no work.
fn no_op() -> Message {
    Message {
        plugin: Some("echo".to_owned()),
        body: "01234567890123456789".into(),
        ..Message::default()
    }
}

/// Runs the command.
pub(super) async fn bench(
    global: &Global,
    config: Config,
    args: BenchArgs,
) -> Result<Exit, Stopped> {
    let place = tempfile::Builder::new()
        .prefix("scutwork-bench-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let stand = Stand {
        config: &config,
        runs: args.runs,
        quick: args.quick,
        place: place.path(),
    };
    let machine = Machine::of(&config);
    if global.output == Format::Text {
        for line in machine.lines() {
            output::line(&line);
        }
    }
    let mut rows = Vec::new();
    let mut not_run = Vec::new();
    for bench in EACH {
        if args.bench != bench && args.bench != Bench::All {
            continue;
        }
        match one(&stand, bench).await? {
            Some(measured) => rows.extend(measured),
            None => not_run.push(bench),
        }
    }
    show(global, &machine, &rows);
    for bench in &not_run {
        output::complain(&format!(
            "NOT RUN: {bench:?} needs a RabbitMQ; name one with --broker amqp://..."
        ));
    }
    Ok(if args.bench != Bench::All && !not_run.is_empty() {
        Exit::Usage
    } else {
        Exit::Done
    })
}

/// None: it needs a RabbitMQ, and the configuration names none.
async fn one(stand: &Stand<'_>, bench: Bench) -> Result<Option<Vec<Row>>, Stopped> {
    Ok(Some(match bench {
        Bench::All => Vec::new(),
        Bench::Sandbox => sandbox::measure(stand).await?,
        Bench::Amqp => match &stand.config.broker {
            BrokerConfig::RabbitMq(options) => amqp::measure(stand, options).await?,
            BrokerConfig::Sqlite(_) => return Ok(None),
        },
        Bench::Sqlite => sqlite::measure(stand).await?,
        Bench::Sleepers => sleepers::measure(stand).await?,
        Bench::Latency => latency::measure(stand).await?,
        Bench::Mixed => mixed::measure(stand).await?,
        Bench::Deploy => deploy::measure(stand).await?,
        Bench::Soak => soak::measure(stand).await?,
    }))
}

fn show(global: &Global, machine: &Machine, rows: &[Row]) {
    match global.output {
        Format::Text => {
            let mut cells = vec![Row::headings()];
            cells.extend(rows.iter().map(Row::cells));
            output::table(&cells);
        }
        Format::Json => output::json(&json!({
            "machine": machine.json(),
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        })),
    }
}
