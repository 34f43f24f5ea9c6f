//! From the way in which a run ended to its [`Outcome`].

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Trap, WasmBacktrace};

use super::contract::exports::scutwork::task::handler;
use super::limits::Limits;
use super::voice::cut;
use crate::name::PluginName;
use crate::outcome::{Failure, Limit, Outcome, Output};
use crate::units::{show_duration, show_size};

/// What a failure's code may have, in bytes.
const MAX_CODE: usize = 64;
/// What a failure's message may have, in bytes.
const MAX_MESSAGE: usize = 8 << 10;
/// What a content type may have, in bytes: as much as a message's property holds.
const MAX_CONTENT_TYPE: usize = 255;

/// How a guest's call ended.
pub(super) enum Ending {
    /// It returned, or trapped.
    Returned(wasmtime::Result<Result<handler::Output, handler::Failure>>),
    /// It was ended by a limit.
    Limited(Limit),
}

/// What is known of a run beside its ending.
pub(super) struct Circumstances<'a> {
    pub(super) plugin: &'a PluginName,
    pub(super) limits: &'a Limits,
    pub(super) ceiling: &'a Limits,
    pub(super) was_cancelled: bool,
    pub(super) was_refused_memory: bool,
    pub(super) stderr: String,
}

impl Circumstances<'_> {
    /// What the ending means.
    pub(super) fn outcome(&self, ending: Ending) -> Outcome {
        match ending {
            Ending::Limited(limit) => self.limited(limit),
            Ending::Returned(Ok(Ok(output))) => self.done(output),
            Ending::Returned(Ok(Err(failure))) => self.failed(failure),
            Ending::Returned(Err(_)) if self.was_refused_memory => self.limited(Limit::Memory),
            Ending::Returned(Err(error)) if copied_too_much(&error) => self.limited(Limit::Output),
            Ending::Returned(Err(error)) => Outcome::Failed(Failure::Trapped {
                message: self.trap(&error),
            }),
        }
    }

    fn done(&self, output: handler::Output) -> Outcome {
        let size = output.body.len() + output.content_type.as_ref().map_or(0, String::len);
        if size as u64 > self.limits.output {
            return self.limited(Limit::Output);
        }
        Outcome::Done(Output {
            // One that no message can carry is as good as none.
            content_type: output
                .content_type
                .filter(|said| said.len() <= MAX_CONTENT_TYPE && !said.contains(char::is_control)),
            body: Bytes::from(output.body),
        })
    }

    fn failed(&self, failure: handler::Failure) -> Outcome {
        match failure {
            handler::Failure::Retry(_) if self.was_cancelled => Outcome::Interrupted,
            handler::Failure::Retry(reason) => Outcome::Failed(Failure::PluginError {
                code: cut(&reason.code, MAX_CODE).to_owned(),
                message: cut(&reason.message, MAX_MESSAGE).to_owned(),
                delay: reason
                    .delay
                    .map(|millis| Duration::from_millis(millis.into())),
            }),
            handler::Failure::Reject(reason) => Outcome::Failed(Failure::Rejected {
                code: cut(&reason.code, MAX_CODE).to_owned(),
                message: cut(&reason.message, MAX_MESSAGE).to_owned(),
            }),
        }
    }

    fn limited(&self, limit: Limit) -> Outcome {
        let Limits {
            memory,
            cpu,
            timeout,
            output,
        } = self.limits;
        let (what, value, setting, is_highest) = match limit {
            Limit::Memory => (
                "memory limit",
                show_size(*memory),
                "memory",
                *memory >= self.ceiling.memory,
            ),
            Limit::Cpu => (
                "cpu limit",
                show_duration(*cpu),
                "cpu",
                *cpu >= self.ceiling.cpu,
            ),
            Limit::Timeout => (
                "timeout",
                show_duration(*timeout),
                "timeout",
                *timeout >= self.ceiling.timeout,
            ),
            Limit::Output => (
                "output limit",
                show_size(*output),
                "output",
                *output >= self.ceiling.output,
            ),
        };
        let plugin = self.plugin;
        let mut message = format!("{what} {value} reached in plugin `{plugin}`; ");
        let _ = if is_highest {
            write!(message, "it is this worker's highest limits.{setting}")
        } else {
            write!(message, "raise limits.{setting} in {plugin}.toml")
        };
        Outcome::Failed(Failure::LimitExceeded { limit, message })
    }

    /// The trap in one line, then where, then what the guest said last.
    fn trap(&self, error: &wasmtime::Error) -> String {
        let mut message = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            let _ = write!(message, "\n{backtrace}");
        }
        if !self.stderr.is_empty() {
            let _ = write!(message, "\nstderr:\n{}", self.stderr);
        }
        message
    }
}

/// Whether the result was larger than the host agreed to copy. An import that was handed too much
/// fails with the same words, but from within the guest.
fn copied_too_much(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<WasmBacktrace>().is_none()
        && error
            .root_cause()
            .to_string()
            .contains("fuel allocated for hostcalls")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::contract::scutwork::task::task_types::RetryReason;

    fn outcome(ending: Ending, was_cancelled: bool, was_refused_memory: bool) -> Outcome {
        Circumstances {
            plugin: &"thumb".parse().unwrap(),
            limits: &Limits::default(),
            ceiling: &Limits::CEILING,
            was_cancelled,
            was_refused_memory,
            stderr: "thread panicked: no such pixel".into(),
        }
        .outcome(ending)
    }

    fn retry() -> Ending {
        Ending::Returned(Ok(Err(handler::Failure::Retry(RetryReason {
            code: "busy".into(),
            message: String::new(),
            delay: None,
        }))))
    }

    #[test]
    fn a_retry_counts_as_interrupted_only_if_the_worker_asked_for_an_end() {
        assert!(matches!(
            outcome(retry(), true, false),
            Outcome::Interrupted
        ));
        assert!(matches!(
            outcome(retry(), false, false),
            Outcome::Failed(Failure::PluginError { .. })
        ));
    }

    #[test]
    fn a_trap_ends_with_what_the_guest_said_last() {
        let trap = Ending::Returned(Err(Trap::UnreachableCodeReached.into()));
        match outcome(trap, false, false) {
            Outcome::Failed(Failure::Trapped { message }) => {
                assert!(message.contains("unreachable"), "{message}");
                assert!(message.ends_with("stderr:\nthread panicked: no such pixel"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_guest_that_copes_with_a_refused_growth_is_not_failed_for_it() {
        let ended = || {
            Ending::Returned(Ok(Ok(handler::Output {
                content_type: None,
                body: vec![],
            })))
        };
        assert!(matches!(outcome(ended(), false, true), Outcome::Done(_)));
        let trap = Ending::Returned(Err(Trap::UnreachableCodeReached.into()));
        match outcome(trap, false, true) {
            Outcome::Failed(Failure::LimitExceeded { message, .. }) => assert_eq!(
                message,
                "memory limit 64MiB reached in plugin `thumb`; raise limits.memory in thumb.toml"
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_content_type_that_no_message_can_carry_is_left_out() {
        for (said, kept) in [
            ("text/plain", true),
            ("a\r\nb", false),
            (&"x".repeat(256), false),
        ] {
            let output = handler::Output {
                content_type: Some(said.into()),
                body: vec![],
            };
            match outcome(Ending::Returned(Ok(Ok(output))), false, false) {
                Outcome::Done(output) => {
                    assert_eq!(output.content_type.is_some(), kept, "{said:?}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
