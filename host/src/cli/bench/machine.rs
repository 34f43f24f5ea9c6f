//! [`Machine`]: on what the figures were measured, without which they mean nothing.

use std::thread;

use serde_json::{Value, json};

use crate::broker::rabbitmq::Greeting;
use crate::broker::sqlite::Durability;
use crate::config::{BrokerConfig, Config};
use crate::worker::prefetch::Prefetch;

/// Hardware, system, broker and settings, each as a name and a value.
pub(super) struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// What can be learnt of it. What the system does not tell is `unknown`.
    pub(super) fn of(config: &Config, amount: String) -> Machine {
        let unknown = || "unknown".to_owned();
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let broker = match &config.broker {
            BrokerConfig::Sqlite(options) => match options.durability {
                Durability::Full => "embedded queue, every confirm on disk".to_owned(),
                Durability::Normal => "embedded queue, durability = \"normal\"".to_owned(),
            },
            BrokerConfig::RabbitMq(options) => match Greeting::of(options) {
                Ok(Greeting { product, version }) => {
                    format!("{product} {version}, quorum queue, publisher confirms; embedded queue")
                }
                Err(_) => "unknown, quorum queue; embedded queue".to_owned(),
            },
        };
        Machine(vec![
            ("scutwork", env!("CARGO_PKG_VERSION").to_owned()),
            (
                "processor",
                format!(
                    "{processors} x {}",
                    field("/proc/cpuinfo", "model name").unwrap_or_else(unknown)
                ),
            ),
            (
                "memory",
                field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
            ),
            ("system", system().unwrap_or_else(unknown)),
            (
                "load average",
                std::fs::read_to_string("/proc/loadavg")
                    .ok()
                    .and_then(|load| Some(load.split_whitespace().next()?.to_owned()))
                    .unwrap_or_else(unknown),
            ),
            ("broker", broker),
            (
                "settings",
                format!(
                    "{} slots, prefetch {}, {} threads for plugins",
                    config.slots,
                    match config.prefetch {
                        Prefetch::Fixed(prefetch) => prefetch.to_string(),
                        Prefetch::Automatic => "automatic".to_owned(),
                    },
                    config.threads
                ),
            ),
            ("measured", amount),
        ])
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
    }

    pub(super) fn json(&self) -> Value {
        let fields = self.0.iter();
        fields
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The kernel, and whether it groups processes by session: then it is groups that share the processors, which
/// is seen in whatever a broker on the same machine does.
fn system() -> Option<String> {
    let told = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
    let release = told("osrelease")?;
    let grouping = match told("sched_autogroup_enabled") {
        Some(value) if value.trim() == "1" => "autogroup on",
        _ => "autogroup off",
    };
    Some(format!("Linux {}, {grouping}", release.trim()))
}

/// The first value of a name in one of the system's files of `name: value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
