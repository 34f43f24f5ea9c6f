//! Fails until a given attempt, then succeeds: for trying out retries.
//!
//! The payload is the number of the first attempt that succeeds, as text: `3` fails twice. With a
//! second number, `3 250`, each failure asks for a wait of that many milliseconds; without one, the
//! manifest's backoff applies. Anything else is rejected.
//!
//! It shows when a plugin asks for a retry, and when it rejects instead: a service that is away may
//! come back, but a payload that cannot be read never gets better.

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};
use scutwork::task::log::{self, Level};
use scutwork::task::task_types::{RejectReason, RetryReason};

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

struct Flaky;

export!(Flaky);

impl Guest for Flaky {
    fn handle(task: Task) -> Result<Output, Failure> {
        let (succeeds_at, delay) = parse(&task.payload).ok_or_else(bad_payload)?;
        if task.attempt < succeeds_at {
            let attempt = task.attempt.to_string();
            log::write(Level::Warn, "not yet", &[("attempt".into(), attempt)]);
            return Err(Failure::Retry(RetryReason {
                code: "not-yet".into(),
                message: format!("attempt {} of {succeeds_at} fails", task.attempt),
                delay,
            }));
        }
        Ok(Output {
            content_type: Some("text/plain".into()),
            body: format!("worked at attempt {}", task.attempt).into(),
        })
    }
}

/// The attempt that succeeds, and the wait before each in milliseconds.
fn parse(payload: &[u8]) -> Option<(u32, Option<u32>)> {
    let mut words = std::str::from_utf8(payload).ok()?.split_whitespace();
    let succeeds_at = words.next()?.parse().ok()?;
    let delay = words.next().map(str::parse).transpose().ok()?;
    match words.next() {
        None => Some((succeeds_at, delay)),
        Some(_) => None,
    }
}

fn bad_payload() -> Failure {
    Failure::Reject(RejectReason {
        code: "bad-payload".into(),
        message: "the payload is not one number or two, such as `3` or `3 250`".into(),
    })
}
