//! Whether every plugin ends before RabbitMQ takes its tasks away. Doctor and workers both ask here.

use std::sync::Arc;
use std::time::Duration;

use super::finding::Finding;
use crate::plugin::Plugin;
use crate::units::show_duration;

const CHECK: &str = "consumer timeout";

/// The plugins that may run for longer than the broker waits, as a sentence and what to do.
pub(in crate::cli) fn exceeded(
    limit: Duration,
    plugins: &[Arc<Plugin>],
) -> Option<(String, String)> {
    let longer: Vec<String> = plugins
        .iter()
        .filter(|plugin| plugin.manifest.limits.timeout >= limit)
        .map(|plugin| {
            let timeout = show_duration(plugin.manifest.limits.timeout);
            format!("`{}` may run for {timeout}", plugin.name)
        })
        .collect();
    if longer.is_empty() {
        return None;
    }
    let limit = show_duration(limit);
    Some((
        format!(
            "RabbitMQ takes back what is unsettled after {limit}, and {}: such a task runs again while it still runs",
            longer.join(", ")
        ),
        "raise consumer_timeout in rabbitmq.conf and rabbitmq.consumer_timeout in scutwork.toml alike, or lower limits.timeout in the manifest".to_owned(),
    ))
}

pub(super) fn check(limit: Duration, plugins: &[Arc<Plugin>]) -> Finding {
    match exceeded(limit, plugins) {
        Some((finding, fix)) => Finding::warn(CHECK, finding, fix),
        None => Finding::ok(
            CHECK,
            format!(
                "every plugin ends before the broker's {} (as rabbitmq.consumer_timeout says; the broker does not tell)",
                show_duration(limit)
            ),
        ),
    }
}
