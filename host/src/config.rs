//! [`Config`]: what flags, environment and `scutwork.toml` say, made into one whole and checked once,
//! before anything starts.

mod compile;
mod trust;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::broker::rabbitmq::{RabbitMqOptions, SettlementMode};
use crate::broker::sqlite::{Durability, SqliteOptions};
use crate::name::{PluginName, QueueName};
use crate::plugin::compiler::CompileSettings;
use crate::plugin::manifest::limits::LimitsSection;
use crate::plugin::registry::Directory;
use crate::plugin::trust::Trust;
use crate::sandbox::limits::Limits;
use crate::settlement::Parking;
use crate::strict_toml;
use crate::task::TaskRules;
use crate::units;
use crate::worker::prefetch::Prefetch;

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "scutwork.toml";

/// The broker when none is named: a file in the folder that the program is started in.
pub const DEFAULT_BROKER: &str = "sqlite:scutwork.db";

/// Slots for each processor. Plugins mostly wait; and at 16, tasks that all use their full default
/// CPU limit of 10 s still end well within the default timeout of 5 min when they share one.
const SLOTS_PER_CORE: usize = 16;

/// Everything that a command may need to know. Checked: nobody behind it checks again.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which broker, and how to reach it.
    pub broker: BrokerConfig,
    /// The queues, at least one.
    pub queues: Vec<QueueName>,
    /// The plugin directory.
    pub plugins: Directory,
    /// How many tasks run at once.
    pub slots: NonZeroUsize,
    /// How many deliveries of one queue may be unsettled at once.
    pub prefetch: Prefetch,
    /// How many threads run guests.
    pub threads: NonZeroUsize,
    /// How long running tasks have once a worker is stopping.
    pub grace: Duration,
    /// A file that is there while a worker takes tasks from all its queues.
    pub ready_file: Option<PathBuf>,
    /// What a message must keep to.
    pub rules: TaskRules,
    /// How long tasks wait for a plugin that is not here.
    pub parking: Parking,
    /// The most that any manifest can set.
    pub ceiling: Limits,
    /// How plugins are compiled, but for the program that does it.
    pub compile: CompileSettings,
    /// Whose plugins are loaded.
    pub trust: Trust,
}

/// Which broker, and how to reach it.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// The embedded queue.
    Sqlite(SqliteOptions),
    /// RabbitMQ.
    RabbitMq(RabbitMqOptions),
}

/// What the command line and the environment say. Each that is none is left to the file, and then to
/// the default.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--broker`, several separated by commas
    pub broker: Option<String>,
    /// `--queue`
    pub queues: Vec<String>,
    /// `--plugins`
    pub plugins: Option<PathBuf>,
    /// `--slots`
    pub slots: Option<NonZeroUsize>,
    /// `--prefetch`
    pub prefetch: Option<u16>,
    /// `--grace`
    pub grace: Option<Duration>,
    /// `--ready-file`
    pub ready_file: Option<PathBuf>,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something in it cannot be meant.
    #[error("{0}")]
    Bad(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    broker: Option<OneOrMany>,
    queue: Option<OneOrMany>,
    plugins: Option<PathBuf>,
    #[serde(default)]
    worker: WorkerSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    rabbitmq: RabbitMqSection,
    #[serde(default)]
    sqlite: SqliteSection,
    #[serde(default)]
    compile: compile::CompileSection,
    #[serde(default)]
    trust: trust::TrustSection,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerSection {
    slots: Option<NonZeroUsize>,
    prefetch: Option<u16>,
    threads: Option<NonZeroUsize>,
    #[serde(default, deserialize_with = "units::duration")]
    grace: Option<Duration>,
    ready_file: Option<PathBuf>,
    default_plugin: Option<String>,
    #[serde(default, deserialize_with = "units::duration")]
    unknown_plugin_ttl: Option<Duration>,
    #[serde(default, deserialize_with = "units::size")]
    max_payload: Option<u64>,
    settlement: Option<SettlementWord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SettlementWord {
    Standard,
    Native,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RabbitMqSection {
    username: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "units::duration")]
    consumer_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    heartbeat: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqliteSection {
    durability: Option<DurabilityWord>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DurabilityWord {
    Full,
    Normal,
}

impl Config {
    /// Reads the file, lays the flags over it, and checks the whole.
    ///
    /// # Errors
    /// One sentence that names the place and the fix.
    pub fn resolve(flags: Flags) -> Result<Config, ConfigError> {
        let file = read_file(flags.config.as_deref())?;
        Config::check(flags, file)
    }

    /// What there is without flags, environment or file.
    ///
    /// # Errors
    /// None that a person could cause.
    pub fn built_in() -> Result<Config, ConfigError> {
        Config::check(Flags::default(), File::default())
    }

    fn check(flags: Flags, file: File) -> Result<Config, ConfigError> {
        let WorkerSection {
            slots,
            prefetch,
            threads,
            grace,
            ready_file,
            ..
        } = file.worker;
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let slots =
            flags
                .slots
                .or(slots)
                .unwrap_or(cores.saturating_mul(
                    NonZeroUsize::new(SLOTS_PER_CORE).unwrap_or(NonZeroUsize::MIN),
                ));
        let settlement = file.worker.settlement;
        Ok(Config {
            queues: queues(flags.queues, file.queue)?,
            plugins: match flags.plugins.or(file.plugins) {
                Some(named) => Directory::Named(named),
                None => Directory::Usual("plugins".into()),
            },
            slots,
            prefetch: prefetch_of(flags.prefetch.or(prefetch), slots, settlement)?,
            threads: threads.unwrap_or(cores),
            grace: flags.grace.or(grace).unwrap_or(Duration::from_secs(25)),
            ready_file: flags.ready_file.or(ready_file),
            rules: TaskRules {
                default_plugin: default_plugin(file.worker.default_plugin.as_deref())?,
                max_payload: file.worker.max_payload.unwrap_or(64 << 20),
            },
            parking: Parking {
                ttl: file
                    .worker
                    .unknown_plugin_ttl
                    .unwrap_or(Parking::default().ttl),
                ..Parking::default()
            },
            ceiling: file.limits.over(Limits::CEILING),
            compile: file.compile.resolve()?,
            trust: file.trust.resolve()?,
            broker: broker(
                flags.broker,
                file.broker,
                file.rabbitmq,
                file.sqlite,
                settlement,
            )?,
        })
    }
}

fn read_file(named: Option<&Path>) -> Result<File, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match named {
                None => Ok(File::default()),
                Some(path) => Err(ConfigError::NotFound(format!(
                    "no config file {}; check --config",
                    path.display()
                ))),
            };
        }
        Err(error) => {
            return Err(ConfigError::Bad(format!(
                "cannot read {}: {error}",
                path.display()
            )));
        }
    };
    strict_toml::parse(&text, path).map_err(|error| ConfigError::Bad(error.to_string()))
}

fn many(texts: OneOrMany) -> Vec<String> {
    match texts {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    }
}

fn queues(flags: Vec<String>, file: Option<OneOrMany>) -> Result<Vec<QueueName>, ConfigError> {
    let names = if flags.is_empty() {
        file.map(many).unwrap_or_default()
    } else {
        flags
    };
    let mut queues = Vec::new();
    for name in names {
        let queue: QueueName = name.parse().map_err(bad)?;
        if !queues.contains(&queue) {
            queues.push(queue);
        }
    }
    if queues.is_empty() {
        queues.push("tasks".parse().map_err(bad)?);
    }
    Ok(queues)
}

fn prefetch_of(
    said: Option<u16>,
    slots: NonZeroUsize,
    settlement: Option<SettlementWord>,
) -> Result<Prefetch, ConfigError> {
    match (said, settlement) {
        (Some(0), _) => Err(ConfigError::Bad(
            "a prefetch of 0 would take the whole queue into memory; set 1 or more".into(),
        )),
        (Some(prefetch), _) => Ok(Prefetch::Fixed(prefetch)),
        // What is put back natively counts as a return, of which the owner's policy may allow few.
        (None, Some(SettlementWord::Native)) => {
            Ok(Prefetch::Fixed(Prefetch::Automatic.at_first(slots.get())))
        }
        (None, Some(SettlementWord::Standard) | None) => Ok(Prefetch::Automatic),
    }
}

fn default_plugin(name: Option<&str>) -> Result<PluginName, ConfigError> {
    name.unwrap_or("dots").parse().map_err(bad)
}

fn broker(
    flag: Option<String>,
    file: Option<OneOrMany>,
    rabbitmq: RabbitMqSection,
    sqlite: SqliteSection,
    settlement: Option<SettlementWord>,
) -> Result<BrokerConfig, ConfigError> {
    let mut urls = match flag {
        Some(urls) => urls.split(',').map(|url| url.trim().to_owned()).collect(),
        None => file.map(many).unwrap_or_default(),
    };
    if urls.is_empty() {
        urls.push(DEFAULT_BROKER.to_owned());
    }
    if let Some(path) = urls.iter().find_map(|url| url.strip_prefix("sqlite:")) {
        if urls.len() > 1 {
            return Err(ConfigError::Bad(
                "several brokers are for amqp:// alone; name one sqlite: file".to_owned(),
            ));
        }
        if settlement == Some(SettlementWord::Native) {
            return Err(ConfigError::Bad(
                "worker.settlement = \"native\" is for RabbitMQ queues with policies of their own; \
                 leave it out for the embedded queue"
                    .to_owned(),
            ));
        }
        let durability = match sqlite.durability {
            None | Some(DurabilityWord::Full) => Durability::Full,
            Some(DurabilityWord::Normal) => Durability::Normal,
        };
        return Ok(BrokerConfig::Sqlite(SqliteOptions {
            durability,
            ..SqliteOptions::new(sqlite_path(path)?)
        }));
    }
    let mut options = RabbitMqOptions {
        user: rabbitmq.username,
        password: rabbitmq
            .password_file
            .as_deref()
            .map(read_secret)
            .transpose()?,
        authorities: rabbitmq.ca_file.as_deref().map(read_named).transpose()?,
        settlement: match settlement {
            None | Some(SettlementWord::Standard) => SettlementMode::Standard,
            Some(SettlementWord::Native) => SettlementMode::Native,
        },
        heartbeat: rabbitmq.heartbeat,
        ..RabbitMqOptions::new(urls)
    };
    if let Some(consumer_timeout) = rabbitmq.consumer_timeout {
        options.consumer_timeout = consumer_timeout;
    }
    options.check().map_err(bad)?;
    Ok(BrokerConfig::RabbitMq(options))
}

fn sqlite_path(path: &str) -> Result<PathBuf, ConfigError> {
    // `sqlite:///var/q.db` and `sqlite:/var/q.db` both mean `/var/q.db`.
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(ConfigError::Bad(
            "sqlite: names no file; write for example sqlite:scutwork.db".into(),
        ));
    }
    Ok(path.into())
}

/// A secret from a file, without the line end that editors put behind it.
fn read_secret(path: &Path) -> Result<String, ConfigError> {
    Ok(read_named(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_named(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ConfigError::NotFound(format!("no file {}", path.display()))
        }
        _ => ConfigError::Bad(format!("cannot read {}: {error}", path.display())),
    })
}

fn bad(error: impl std::fmt::Display) -> ConfigError {
    ConfigError::Bad(error.to_string())
}
