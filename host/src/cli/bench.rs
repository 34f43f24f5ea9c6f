//! `scutwork bench`: what this program costs, each figure beside the bare library's, measured in turn in
//! the same run.

mod amqp;
mod burn;
mod clock;
mod curve;
mod curves;
mod delays;
mod deploy;
mod figures;
mod latency;
mod machine;
mod mixed;
mod plot;
mod sandbox;
mod signs;
mod sleepers;
mod soak;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

use self::curve::Curve;
use self::figures::Row;
use self::machine::Machine;
use super::{Exit, Format, Global, Stopped, WorkerArgs, connect, output};
use crate::broker::Message;
use crate::broker::rabbitmq::RabbitMqOptions;
use crate::broker::rabbitmq::baseline::Bare;
use crate::broker::sqlite::SqliteOptions;
use crate::config::{BrokerConfig, Config};
use crate::name::QueueName;
use crate::plugin::embedded;
use crate::plugin::registry::Directory;
use crate::task::new_id;
use crate::worker::prefetch::Prefetch;

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
    /// Draw the curves as SVG: into FILE.svg, or a file each into a folder
    #[arg(long, value_name = "FILE|DIR")]
    plot: Option<PathBuf>,
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
    /// How late tasks start that were submitted with a delay
    Delays,
    /// A plugin of a millisecond beside others that compute for ever
    Mixed,
    /// From a file dropped in to its first task, and a start with a hundred plugins
    Deploy,
    /// Memory after very many tasks
    Soak,
    /// How the cost grows with payload, concurrency, plugins and queue
    Curves,
}

const EACH: [Bench; 10] = [
    Bench::Sandbox,
    Bench::Sqlite,
    Bench::Amqp,
    Bench::Latency,
    Bench::Delays,
    Bench::Mixed,
    Bench::Deploy,
    Bench::Sleepers,
    Bench::Soak,
    Bench::Curves,
];

/// What every bench is told.
struct Stand<'a> {
    config: &'a Config,
    runs: u32,
    quick: bool,
    /// For queues and plugins; removed in the end.
    place: &'a Path,
    /// Why no RabbitMQ is measured. None: there is one.
    without_rabbitmq: Option<String>,
}

impl Stand<'_> {
    /// So many tasks, or a tenth of them.
    fn tasks(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }

    /// Where RabbitMQ is, if the configuration names one that can be used.
    fn rabbitmq(&self) -> Option<&RabbitMqOptions> {
        match (&self.config.broker, &self.without_rabbitmq) {
            (BrokerConfig::RabbitMq(options), None) => Some(options),
            (BrokerConfig::RabbitMq(_) | BrokerConfig::Sqlite(_), _) => None,
        }
    }

    /// What a worker's rate is measured with: what was set. Else with as many as there are slots, with which the
    /// bare libraries are bound by what binds a worker, and as a worker does that decides it.
    fn prefetches(&self) -> Vec<Prefetch> {
        match self.config.prefetch {
            Prefetch::Fixed(_) => vec![self.config.prefetch],
            Prefetch::Automatic => {
                let slots = Prefetch::Automatic.at_first(self.config.slots.get());
                vec![Prefetch::Fixed(slots), Prefetch::Automatic]
            }
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

    /// The same with a new queue there, which whoever asked removes.
    fn on_rabbitmq(&self, options: &RabbitMqOptions) -> Result<Config, Stopped> {
        let mut config = self.embedded()?;
        config.broker = BrokerConfig::RabbitMq(options.clone());
        Ok(config)
    }
}

/// A queue's name that nobody else uses.
fn queue() -> Result<QueueName, Stopped> {
    format!("scutwork-bench-{}", new_id())
        .parse()
        .map_err(Stopped::usage)
}

/// Removes a queue of the bench's, and all that belongs to it.
async fn remove(options: &RabbitMqOptions, queue: &QueueName) -> Result<(), Stopped> {
    Ok(Bare::connect(options).await?.remove(queue).await?)
}

/// A task that is no work.
fn no_op() -> Message {
    Message {
        plugin: Some("echo".to_owned()),
        body: "01234567890123456789".into(),
        ..Message::default()
    }
}

/// What came of the benches that ran.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    curves: Vec<Curve>,
    not_run: Vec<String>,
}

/// Runs the command.
pub(super) async fn bench(
    global: &Global,
    config: Config,
    args: BenchArgs,
) -> Result<Exit, Stopped> {
    let chosen = |bench| args.bench == bench || args.bench == Bench::All;
    if args.plot.is_some() && !chosen(Bench::Curves) {
        return Err(Stopped::usage(
            "--plot draws the curves; say `bench curves --plot FILE`, or `bench all --plot FILE`",
        ));
    }
    let place = tempfile::Builder::new()
        .prefix("scutwork-bench-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let stand = Stand {
        config: &config,
        runs: args.runs,
        quick: args.quick,
        place: place.path(),
        without_rabbitmq: without_rabbitmq(&config.broker).await,
    };
    let amount = format!(
        "{} runs after one that warms up{}; median (least..most)",
        args.runs,
        if args.quick {
            ", of a tenth of the work"
        } else {
            ""
        }
    );
    let machine = Machine::of(&config, amount);
    if global.output == Format::Text {
        for line in machine.lines() {
            output::line(&line);
        }
    }
    let mut results = Results::default();
    let mut ended = Ok(());
    for bench in EACH.into_iter().filter(|bench| chosen(*bench)) {
        ended = one(&stand, bench, &mut results).await;
        if ended.is_err() {
            break;
        }
    }
    // What was measured before one failed is shown all the same.
    show(global, &machine, &results);
    ended?;
    if let Some(path) = &args.plot {
        curves::draw(&results.curves, path)?;
        output::say(&format!("drawn: {}", path.display()));
    }
    let Some(why) = &stand.without_rabbitmq else {
        return Ok(Exit::Done);
    };
    if !results.not_run.is_empty() {
        output::complain(&format!("NOT RUN: {}: {why}", results.not_run.join(", ")));
    }
    Ok(match &config.broker {
        BrokerConfig::RabbitMq(_) if !results.not_run.is_empty() => Exit::Unavailable,
        BrokerConfig::Sqlite(_) if args.bench == Bench::Amqp => Exit::Usage,
        BrokerConfig::RabbitMq(_) | BrokerConfig::Sqlite(_) => Exit::Done,
    })
}

/// Why no RabbitMQ can be measured, if none can.
async fn without_rabbitmq(broker: &BrokerConfig) -> Option<String> {
    match broker {
        BrokerConfig::Sqlite(_) => {
            Some("no RabbitMQ is named; name one with --broker amqp://...".to_owned())
        }
        BrokerConfig::RabbitMq(_) => match connect(broker, Arc::new(|_| {})).await {
            Ok(broker) => {
                broker.close().await;
                None
            }
            Err(error) => Some(error.to_string()),
        },
    }
}

async fn one(stand: &Stand<'_>, bench: Bench, results: &mut Results) -> Result<(), Stopped> {
    let rows = match bench {
        Bench::All => Vec::new(),
        Bench::Sandbox => sandbox::measure(stand).await?,
        Bench::Amqp => match stand.rabbitmq() {
            Some(options) => amqp::measure(stand, options).await?,
            None => {
                results.not_run.push("amqp".to_owned());
                Vec::new()
            }
        },
        Bench::Sqlite => sqlite::measure(stand).await?,
        Bench::Sleepers => sleepers::measure(stand).await?,
        Bench::Latency => latency::measure(stand).await?,
        Bench::Delays => delays::measure(stand).await?,
        Bench::Mixed => mixed::measure(stand).await?,
        Bench::Deploy => deploy::measure(stand).await?,
        Bench::Soak => soak::measure(stand).await?,
        Bench::Curves => {
            results.curves = curves::measure(stand).await?;
            Vec::new()
        }
    };
    results.rows.extend(rows);
    let other_half = match bench {
        Bench::Latency => "latency on RabbitMQ",
        Bench::Delays => "delays on RabbitMQ",
        Bench::Mixed => "mixed on RabbitMQ",
        Bench::Curves => "curves on RabbitMQ",
        Bench::All
        | Bench::Sandbox
        | Bench::Amqp
        | Bench::Sqlite
        | Bench::Sleepers
        | Bench::Deploy
        | Bench::Soak => return Ok(()),
    };
    if stand.rabbitmq().is_none() {
        results.not_run.push(other_half.to_owned());
    }
    Ok(())
}

fn show(global: &Global, machine: &Machine, results: &Results) {
    let Results {
        rows,
        curves,
        not_run,
    } = results;
    match global.output {
        Format::Text => {
            if !rows.is_empty() {
                let mut cells = vec![Row::headings()];
                cells.extend(rows.iter().map(Row::cells));
                output::table(&cells);
            }
            if !curves.is_empty() {
                let mut cells = vec![Curve::headings()];
                cells.extend(curves.iter().flat_map(Curve::cells));
                output::table(&cells);
            }
        }
        Format::Json => output::json(&json!({
            "machine": machine.json(),
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "curves": curves.iter().map(Curve::json).collect::<Vec<_>>(),
            "not_run": not_run,
        })),
    }
}
