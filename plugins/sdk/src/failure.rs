//! How a [`Failure`] is made, and how an error becomes one on purpose.

use std::fmt::Display;
use std::time::Duration;

use crate::{Failure, RejectReason, RetryReason};

impl Failure {
    /// It may work later: a service was away, a rate limit was met.
    pub fn retry(code: &str, message: impl Display) -> Self {
        Failure::Retry(RetryReason {
            code: code.to_owned(),
            message: format!("{message:#}"),
            delay: None,
        })
    }

    /// It can never work: the payload is wrong.
    pub fn reject(code: &str, message: impl Display) -> Self {
        Failure::Reject(RejectReason {
            code: code.to_owned(),
            message: format!("{message:#}"),
        })
    }

    /// Asks for a wait before the next attempt, in place of the manifest's backoff. A rejected task has
    /// none, and stays as it is.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        if let Failure::Retry(reason) = &mut self {
            reason.delay = Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        }
        self
    }
}

/// Says of an error what it means for the task. The code is a short word that dead letters and metrics
/// are grouped by; the error's own text is what people read.
pub trait OrFail<T> {
    /// It may work later.
    ///
    /// # Errors
    /// A retry, where there was an error.
    fn or_retry(self, code: &str) -> Result<T, Failure>;

    /// It can never work.
    ///
    /// # Errors
    /// A reject, where there was an error.
    fn or_reject(self, code: &str) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_retry(self, code: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry(code, error))
    }

    fn or_reject(self, code: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::reject(code, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<u32, Failure> {
        text.parse().or_reject("bad-number")
    }

    #[test]
    fn an_error_becomes_the_failure_that_was_asked_for() {
        assert_eq!(parsed("7"), Ok(7));
        let expected = Failure::reject("bad-number", "invalid digit found in string");
        assert_eq!(parsed("seven"), Err(expected));
        let away: Result<(), &str> = Err("nobody answers");
        let expected = Failure::retry("upstream", "nobody answers");
        assert_eq!(away.or_retry("upstream"), Err(expected));
    }

    #[test]
    fn only_a_retry_waits() {
        let wait = Duration::from_secs(2);
        assert!(matches!(
            Failure::retry("busy", "").after(wait),
            Failure::Retry(RetryReason {
                delay: Some(2000),
                ..
            })
        ));
        let reject = Failure::reject("bad", "");
        assert_eq!(reject.clone().after(wait), reject);
    }
}
