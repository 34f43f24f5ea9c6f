//! Fails until a given attempt, then succeeds: for trying out retries.
//!
//! The payload is the number of the first attempt that succeeds, as text: `3` fails twice. With a
//! second number, `3 250`, each failure asks for a wait of that many milliseconds; without one, the
//! manifest's backoff applies. Anything else is rejected.
//!
//! It shows when a plugin asks for a retry, and when it rejects instead: a service that is away may
//! come back, but a payload that cannot be read never gets better.

use std::time::Duration;

use scutwork_plugin::{Failure, OrFail, Output, Task, log, plugin};

plugin!(flaky);

fn flaky(task: Task) -> Result<Output, Failure> {
    let (succeeds_at, wait) = parse(&task.payload)
        .ok_or("the payload is not one number or two, such as `3` or `3 250`")
        .or_reject("bad-payload")?;
    let attempt = task.attempt;
    if attempt < succeeds_at {
        log::warn("not yet", &[("attempt", &attempt)]);
        let failure = format!("attempt {attempt} of {succeeds_at} fails");
        let failure = Failure::retry("not-yet", failure);
        return Err(match wait {
            Some(wait) => failure.after(wait),
            None => failure,
        });
    }
    Ok(Output::text(format!("worked at attempt {attempt}")))
}

/// The attempt that succeeds, and the wait before each.
fn parse(payload: &[u8]) -> Option<(u32, Option<Duration>)> {
    let mut words = std::str::from_utf8(payload).ok()?.split_whitespace();
    let succeeds_at = words.next()?.parse().ok()?;
    let wait: Option<u32> = words.next().map(str::parse).transpose().ok()?;
    let wait = wait.map(|wait| Duration::from_millis(wait.into()));
    match words.next() {
        None => Some((succeeds_at, wait)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fails_until_its_attempt_comes() {
        let mut task = Task::new("2 250");
        let wait = Duration::from_millis(250);
        let failure = Failure::retry("not-yet", "attempt 1 of 2 fails").after(wait);
        assert_eq!(flaky(task.clone()), Err(failure));
        task.attempt = 2;
        assert_eq!(flaky(task), Ok(Output::text("worked at attempt 2")));
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_rejected() {
        for payload in ["", "x", "1 x", "1 2 3"] {
            let failure = flaky(Task::new(payload)).unwrap_err();
            assert!(matches!(failure, Failure::Reject(_)), "{payload}");
        }
    }
}
