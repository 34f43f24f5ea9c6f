//! The command line: what it takes, and how each command ends.

mod bench;
mod dead;
mod demo;
mod doctor;
mod log;
mod long_plugins;
mod output;
mod plugin;
pub mod privileges;
mod queue;
mod readiness;
mod run;
mod signals;
mod submit;
mod up;
mod worker;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use crate::broker::rabbitmq::RabbitMq;
use crate::broker::sqlite::Sqlite;
use crate::broker::{Broker, BrokerError, NoticeSink};
use crate::config::{BrokerConfig, Config, ConfigError, Flags};
use crate::plugin::compiler::confined;
use crate::units;

/// Runs background jobs as sandboxed WebAssembly plugins, on RabbitMQ or an embedded queue.
#[derive(Debug, Parser)]
#[command(
    name = "scutwork",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The config file [default: scutwork.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "SCUTWORK_CONFIG")]
    config: Option<PathBuf>,
    /// sqlite:FILE, amqp://… or amqps://…, several nodes of one cluster by commas [default: sqlite:scutwork.db]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SCUTWORK_BROKER",
        hide_env_values = true
    )]
    broker: Option<String>,
    /// The queue; a worker takes several [default: tasks]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "SCUTWORK_QUEUE",
        value_delimiter = ','
    )]
    queue: Vec<String>,
    /// The directory that plugins lie in [default: ./plugins]
    #[arg(long, global = true, value_name = "DIR", env = "SCUTWORK_PLUGINS")]
    plugins: Option<PathBuf>,
    /// How results are written
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Say less: twice for errors alone
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,
    /// Say more: twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Write without colours (so does NO_COLOR)
    #[arg(long, global = true)]
    no_color: bool,
}

impl Global {
    /// Writes a message to stderr that people can do without, unless less is to be said.
    fn say(&self, text: &str) {
        if self.quiet == 0 {
            output::say(text);
        }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole system in one go, on a temporary embedded queue; ends by itself
    Demo,
    /// Run a worker on the embedded queue, until stopped
    Up(WorkerArgs),
    /// Run a worker on a broker, until stopped
    Worker(WorkerArgs),
    /// Put tasks on a queue
    Submit(submit::SubmitArgs),
    /// Run one task here and now, without a queue, in the same sandbox and limits
    Run(run::RunArgs),
    /// Look at dead letters, and put them back or drop them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Work with plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Say what is wrong between this worker, its broker and its plugins, and what to do; exits 1 if anything is
    Doctor,
    /// Look at queues, and pause, resume or empty them
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Compile one plugin as a child of another command
    #[command(hide = true)]
    Compile,
    /// Measure this program beside the bare libraries under it
    Bench(bench::BenchArgs),
}

#[derive(Debug, Args)]
struct WorkerArgs {
    /// How many tasks run at once [default: 16 for each processor]
    #[arg(long, value_name = "N", env = "SCUTWORK_SLOTS")]
    slots: Option<NonZeroUsize>,
    /// How many deliveries of a queue may be unsettled at once [default: as many as slots, and more while tasks are short]
    #[arg(long, value_name = "N", env = "SCUTWORK_PREFETCH")]
    prefetch: Option<u16>,
    /// How long running tasks have once the worker is stopping [default: 25s]
    #[arg(long, value_name = "TIME", env = "SCUTWORK_GRACE", value_parser = units::parse_duration)]
    grace: Option<Duration>,
    /// A file that is there for as long as the worker takes tasks from all its queues
    #[arg(long, value_name = "FILE", env = "SCUTWORK_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// How a command ends. The numbers are those of sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done.
    Done = 0,
    /// The answer is no: a task died, a check failed.
    No = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something that was named is not there.
    NotFound = 66,
    /// The broker cannot be used.
    Unavailable = 69,
    /// The host could not do its job.
    Internal = 70,
    /// Waiting took too long.
    TimedOut = 75,
    /// The configuration is wrong.
    BadConfig = 78,
}

/// Why a command could not do what was asked.
#[derive(Debug)]
struct Stopped {
    exit: Exit,
    reason: anyhow::Error,
}

impl Stopped {
    fn new(exit: Exit, reason: impl Into<anyhow::Error>) -> Self {
        Stopped {
            exit,
            reason: reason.into(),
        }
    }

    fn usage(reason: impl std::fmt::Display) -> Self {
        Stopped::new(Exit::Usage, anyhow::anyhow!("{reason}"))
    }

    fn not_found(reason: impl std::fmt::Display) -> Self {
        Stopped::new(Exit::NotFound, anyhow::anyhow!("{reason}"))
    }
}

impl From<ConfigError> for Stopped {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::NotFound(_) => Stopped::new(Exit::NotFound, error),
            ConfigError::Bad(_) => Stopped::new(Exit::BadConfig, error),
        }
    }
}

impl From<BrokerError> for Stopped {
    fn from(error: BrokerError) -> Self {
        Stopped::new(Exit::Unavailable, error)
    }
}

/// A fault that no other kind names is the host's own.
impl From<anyhow::Error> for Stopped {
    fn from(reason: anyhow::Error) -> Self {
        Stopped {
            exit: Exit::Internal,
            reason,
        }
    }
}

impl Cli {
    /// Runs the command to its end. Data goes to stdout, messages to stderr. Call it before there are threads: it
    /// starts those that it needs.
    ///
    /// It is not `async`: what is gets compiled where it is waited for, and that is here, once, and not in the program.
    pub fn run(self) -> ExitCode {
        if let Command::Compile = self.command {
            return confined::serve();
        }
        log::start(&self.global);
        let ended = Runtime::new()
            .map_err(|error| anyhow!("cannot start threads: {error}").into())
            .and_then(|runtime| {
                let ended = runtime.block_on(self.dispatch());
                // What still runs belongs to a command that was told to end at once.
                runtime.shutdown_background();
                ended
            });
        let exit = ended.unwrap_or_else(|Stopped { exit, reason }| {
            output::complain(&format!("{reason:#}"));
            exit
        });
        ExitCode::from(exit as u8)
    }

    async fn dispatch(self) -> Result<Exit, Stopped> {
        let Cli { global, command } = self;
        let config = |worker: Option<&WorkerArgs>| Config::resolve(flags(&global, worker));
        match command {
            Command::Demo => demo::demo(&global).await,
            Command::Up(args) => up::up(config(Some(&args))?).await,
            Command::Worker(args) => worker::worker(config(Some(&args))?).await,
            Command::Submit(args) => submit::submit(&global, config(None)?, args).await,
            Command::Run(args) => run::run(&global, config(None)?, args).await,
            Command::Dead(command) => dead::dead(&global, config(None)?, command).await,
            Command::Plugin(command) => plugin::plugin(&global, config(None)?, command).await,
            Command::Doctor => doctor::doctor(&global, &config(None)?).await,
            Command::Bench(args) => {
                let config = config(Some(&args.worker))?;
                bench::bench(&global, config, args).await
            }
            Command::Queue(command) => queue::queue(&global, &config(None)?, command).await,
            Command::Compile => Err(Stopped::usage(
                "compile runs without threads, in `Cli::run`",
            )),
        }
    }
}

fn flags(global: &Global, worker: Option<&WorkerArgs>) -> Flags {
    Flags {
        config: global.config.clone(),
        broker: global.broker.clone(),
        queues: global.queue.clone(),
        plugins: global.plugins.clone(),
        slots: worker.and_then(|args| args.slots),
        prefetch: worker.and_then(|args| args.prefetch),
        grace: worker.and_then(|args| args.grace),
        ready_file: worker.and_then(|args| args.ready_file.clone()),
    }
}

/// The broker that the configuration names.
async fn connect(
    config: &BrokerConfig,
    notices: NoticeSink,
) -> Result<Arc<dyn Broker>, BrokerError> {
    Ok(match config {
        BrokerConfig::Sqlite(options) => Arc::new(Sqlite::open(options.clone(), notices)?),
        BrokerConfig::RabbitMq(options) => {
            Arc::new(RabbitMq::connect(options.clone(), notices).await?)
        }
    })
}
