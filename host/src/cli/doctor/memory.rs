//! Whether this machine has the memory that tasks may ask for when every slot is busy.

use std::sync::Arc;

use super::finding::Finding;
use crate::config::Config;
use crate::plugin::Plugin;
use crate::units::show_size;
use crate::worker::prefetch::{self, Prefetch};

const CHECK: &str = "memory";

pub(super) fn check(config: &Config, plugins: &[Arc<Plugin>]) -> Finding {
    let Some(available) = available() else {
        return Finding::warn(
            CHECK,
            "this system does not tell how much memory it has",
            "see to it that it is more than slots times limits.memory",
        );
    };
    let slots = config.slots.get() as u64;
    let (needed, plugin) = plugins
        .iter()
        .map(|plugin| (most_of(plugin, slots), plugin.name.to_string()))
        .max()
        .unwrap_or_default();
    let available_shown = rounded(available);
    let needed_shown = rounded(needed);
    if needed > available {
        return Finding::warn(
            CHECK,
            format!(
                "{slots} slots full of `{plugin}` may take {needed_shown}, and there are {available_shown}: the system may kill the worker"
            ),
            format!("lower worker.slots, or limits.memory or run.concurrency in {plugin}.toml"),
        );
    }
    let unsettled = u64::from(config.prefetch.at_first(config.slots.get()));
    let (ahead, ahead_shown, fix) = match config.prefetch {
        Prefetch::Fixed(_) => (0, String::new(), "worker.prefetch"),
        Prefetch::Automatic => (
            prefetch::BYTES,
            format!(" and {} held ahead", show_size(prefetch::BYTES)),
            "worker.slots",
        ),
    };
    let each = config.rules.max_payload;
    let held = (unsettled * config.queues.len() as u64)
        .saturating_mul(each)
        .saturating_add(ahead);
    if needed.saturating_add(held) > available {
        return Finding::warn(
            CHECK,
            format!(
                "tasks may take {needed_shown}, and {unsettled} unsettled payloads of {} each{ahead_shown} {} more, of {available_shown}",
                show_size(each),
                rounded(held),
            ),
            format!("lower {fix}, or worker.max_payload if no payload is that large"),
        );
    }
    Finding::ok(
        CHECK,
        format!(
            "tasks may take {needed_shown} of {available_shown} when all {slots} slots are busy"
        ),
    )
}

/// What the tasks of one plugin may take at once, in bytes.
fn most_of(plugin: &Plugin, slots: u64) -> u64 {
    let at_once = plugin
        .manifest
        .concurrency
        .map_or(slots, |bound| slots.min(bound.get().into()));
    plugin.manifest.limits.memory.saturating_mul(at_once)
}

/// What this process may use: the machine's memory, or its control group's where that is less.
fn available() -> Option<u64> {
    let of_machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    // The first is of version 2, the second of version 1; a group without a limit says `max` or
    // more than any machine has.
    let of_group = ["memory.max", "memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok())
        .and_then(|text| text.trim().parse().ok());
    of_machine.into_iter().chain(of_group).min()
}

/// `MemTotal:       16384 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// To the mebibyte, or to a tenth of a gibibyte.
fn rounded(bytes: u64) -> String {
    if bytes < 1 << 30 {
        return format!("{}MiB", bytes >> 20);
    }
    format!("{:.1}GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_as_linux_writes_it() {
        let text = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total(text), Some(16 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }
}
