//! Whether the clock can be right: delays of the embedded queue, task ids and dead letters go by it.

use std::time::{Duration, SystemTime};

use super::finding::Finding;
use crate::config::BrokerConfig;
use crate::units::show_duration;

const CHECK: &str = "clock";

/// The beginning of 2026 in seconds since 1970: before this program.
const TOO_EARLY: u64 = 1_767_225_600;

/// A century later: after it.
const TOO_LATE: u64 = 4_922_985_600;

/// By how much a file may seem to come from the future, as on a machine whose clock is being set.
const TOLERANCE: Duration = Duration::from_secs(60);

pub(super) fn check(broker: &BrokerConfig) -> Finding {
    let now = SystemTime::now();
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if !(TOO_EARLY..TOO_LATE).contains(&since_1970.as_secs()) {
        return Finding::fail(
            CHECK,
            "the system's clock is off by years, so delays and ids are wrong",
            "set it, and keep it set with NTP",
        );
    }
    match broker {
        // Delays go by the broker's own clock there, and AMQP does not tell its time.
        BrokerConfig::RabbitMq(_) => Finding::ok(CHECK, "within reason"),
        BrokerConfig::Sqlite(options) => {
            let ahead = std::fs::metadata(&options.path)
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|written| written.duration_since(now).ok())
                .filter(|ahead| *ahead > TOLERANCE);
            match ahead {
                None => Finding::ok(
                    CHECK,
                    "within reason, and not before the queue's last change",
                ),
                Some(ahead) => Finding::fail(
                    CHECK,
                    format!(
                        "the queue was last written {} from now: the clock went back, and tasks wait that much longer",
                        show_duration(Duration::from_secs(ahead.as_secs()))
                    ),
                    "set the clock, and keep it set with NTP",
                ),
            }
        }
    }
}
