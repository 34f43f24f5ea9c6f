//! What the broker says when a delivery was unsettled for too long, in words that say what to do.

use std::time::Duration;

use super::connection::Trouble;
use crate::units::show_duration;

/// Up to version 4.2 the broker closes the channel for it, with the code for a failed precondition.
const CLOSED_FOR_IT: u16 = 406;

/// The broker's words, and before and after its limit in milliseconds.
const UNSETTLED: &str = "delivery acknowledgement on channel";
const BEFORE_LIMIT: &str = "Timeout value used: ";
const AFTER_LIMIT: &str = " ms";

/// Says what happened and what to do, if this is that trouble. The broker tells its limit here and
/// nowhere else; `configured` is what we took it for.
pub(super) fn explain(trouble: &Trouble, configured: Duration) -> Option<String> {
    if trouble.code != Some(CLOSED_FOR_IT) || !trouble.text.contains(UNSETTLED) {
        return None;
    }
    let limit = limit(&trouble.text);
    let of = limit.map_or(String::new(), |limit| {
        format!(" of {}", show_duration(limit))
    });
    let mistaken = match limit {
        Some(limit) if limit != configured => format!(
            " (rabbitmq.consumer_timeout in scutwork.toml takes it for {})",
            show_duration(configured)
        ),
        Some(_) | None => String::new(),
    };
    Some(format!(
        "a task was unsettled for longer than RabbitMQ's consumer timeout{of}{mistaken}, so the broker delivers \
         again all that was held here; raise consumer_timeout in rabbitmq.conf and rabbitmq.consumer_timeout \
         in scutwork.toml alike, or lower limits.timeout in the plugin's manifest"
    ))
}

fn limit(said: &str) -> Option<Duration> {
    let (_, rest) = said.split_once(BEFORE_LIMIT)?;
    let (millis, _) = rest.split_once(AFTER_LIMIT)?;
    millis.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "the broker said 406 PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out. \
         Timeout value used: 60000 ms. This timeout value can be configured, see consumers doc guide to learn more";

    fn told(code: u16, text: &str, configured: u64) -> Option<String> {
        let trouble = Trouble {
            code: Some(code),
            text: text.to_owned(),
        };
        explain(&trouble, Duration::from_secs(configured))
    }

    #[test]
    fn the_brokers_limit_is_named_and_compared_with_ours() {
        let same = told(406, SAID, 60).unwrap();
        assert!(same.contains("timeout of 1m, so"), "{same}");
        let other = told(406, SAID, 1800).unwrap();
        assert!(
            other.contains("of 1m (rabbitmq.consumer_timeout in scutwork.toml takes it for 30m)"),
            "{other}"
        );
        let untold = told(406, "delivery acknowledgement on channel 1 timed out", 60).unwrap();
        assert!(untold.contains("consumer timeout, so"), "{untold}");
    }

    #[test]
    fn other_trouble_is_left_as_it_is() {
        assert_eq!(
            told(406, "PRECONDITION_FAILED - unknown delivery tag 9", 60),
            None
        );
        assert_eq!(told(404, SAID, 60), None);
    }
}
