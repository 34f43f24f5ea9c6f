//! `scutwork doctor`: what is wrong between this worker, its broker and its plugins, and what to do. It
//! changes nothing.

mod cache;
mod clock;
pub(super) mod consumer_timeout;
mod disk;
mod embedded;
mod finding;
mod memory;
mod plugins;
mod rabbitmq;

use serde_json::json;

use self::finding::Verdict;
use super::{Exit, Format, Global, Stopped, output};
use crate::config::{BrokerConfig, Config};

/// Runs the command.
pub(super) async fn doctor(global: &Global, config: &Config) -> Result<Exit, Stopped> {
    let (served, mut findings) = plugins::check(config)?;
    findings.extend(match &config.broker {
        BrokerConfig::RabbitMq(options) => {
            let mut found =
                rabbitmq::check(options, &config.queues, config.rules.max_payload).await;
            found.push(consumer_timeout::check(options.consumer_timeout, &served));
            found
        }
        BrokerConfig::Sqlite(options) => embedded::check(options),
    });
    findings.push(cache::check(&config.compile));
    findings.push(memory::check(config, &served));
    findings.push(clock::check(&config.broker));
    let count = |verdict| findings.iter().filter(|one| one.verdict == verdict).count();
    let (warnings, failures) = (count(Verdict::Warn), count(Verdict::Fail));
    match global.output {
        Format::Json => output::json(&json!({
            "checks": findings,
            "warnings": warnings,
            "failures": failures,
        })),
        Format::Text => {
            for finding in &findings {
                output::line(&finding.to_string());
            }
        }
    }
    Ok(if failures == 0 { Exit::Done } else { Exit::No })
}
