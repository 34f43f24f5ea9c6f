//! From the way in which a run ended to its [`Outcome`].

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::contract::exports::scutwork::task::handler;
use super::limits::{Limits, remedy};
use super::voice::cut;
use crate::name::PluginName;
use crate::outcome::{Failure, Limit, Outcome, Output, USED, Usage};
use crate::units::show_size;

/// What a failure's code may have, in bytes.
const MAX_CODE: usize = 64;
/// What a failure's message may have, in bytes.
const MAX_MESSAGE: usize = 8 << 10;
/// What a content type may have, in bytes: as much as a message's property holds.
const MAX_CONTENT_TYPE: usize = 255;

/// What a trap's own words may have, in bytes.
const MAX_REASON: usize = 1 << 10;
/// What a trap's backtrace may have, in bytes.
const MAX_BACKTRACE: usize = 4 << 10;

/// How the engine words that the fuel for copies between guest and host is spent.
const COPIED_TOO_MUCH: &str = "fuel allocated for hostcalls";

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
    /// Of what it asked for more than it may have.
    pub(super) refused: Option<Limit>,
    pub(super) stderr: String,
    pub(super) usage: Usage,
}

impl Circumstances<'_> {
    /// What the ending means.
    pub(super) fn outcome(&self, ending: Ending) -> Outcome {
        match ending {
            Ending::Limited(limit) => self.limited(limit),
            Ending::Returned(Ok(Ok(output))) => self.done(output),
            Ending::Returned(Ok(Err(failure))) => self.failed(failure),
            Ending::Returned(Err(error)) => self.trapped(&error),
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
        self.limited_at(limit, "")
    }

    /// A limit that was reached at a place of the guest's.
    fn limited_at(&self, limit: Limit, place: &str) -> Outcome {
        let message = format!(
            "{} {} reached in plugin `{}`; {}{place}{}",
            limit.name(),
            self.limits.show(limit),
            self.plugin,
            remedy(limit, self.limits, self.ceiling, self.plugin.as_str()),
            self.last_words(),
        );
        Outcome::Failed(Failure::LimitExceeded { limit, message })
    }

    /// The guest trapped by itself, or by one of the limits that the engine holds it to.
    fn trapped(&self, error: &wasmtime::Error) -> Outcome {
        match self.refused.or_else(|| limit_behind(error)) {
            Some(limit) => self.limited_at(limit, &place(error)),
            None => Outcome::Failed(Failure::Trapped {
                message: format!(
                    "{}{}{}",
                    cut(&reason(error), MAX_REASON),
                    place(error),
                    self.last_words()
                ),
            }),
        }
    }

    /// What a failure that is the run's own ends with: what it cost, and what the guest said last.
    fn last_words(&self) -> String {
        let Usage {
            cpu,
            wall,
            peak_memory,
        } = self.usage;
        let mut words = format!(
            "{USED}wall {wall:.1?}, cpu {cpu:.1?}, peak memory {}",
            show_size(peak_memory)
        );
        if !self.stderr.is_empty() {
            let _ = write!(words, "\nstderr:\n{}", self.stderr);
        }
        words
    }
}

/// The limit by which the engine ended a guest. It has types for some of them, and words for the rest.
fn limit_behind(error: &wasmtime::Error) -> Option<Limit> {
    if let Some(Trap::StackOverflow) = error.downcast_ref() {
        return Some(Limit::Stack);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some(Limit::Handles);
    }
    let words = error.root_cause().to_string();
    if words.contains("store handle limit exceeded") {
        Some(Limit::Handles)
    } else if words.contains("resource limit exceeded: instance count") {
        Some(Limit::Instances)
    } else if words.contains(COPIED_TOO_MUCH) && !is_in_guest(error) {
        Some(Limit::Output)
    } else {
        None
    }
}

/// Whether it happened in the guest's own code, or in an import that it called; else the host was
/// handing over the task, or taking the result.
fn is_in_guest(error: &wasmtime::Error) -> bool {
    error
        .downcast_ref::<WasmBacktrace>()
        .is_some_and(|backtrace| !backtrace.frames().is_empty())
}

fn reason(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => match error.root_cause().to_string() {
            _ if error.is::<I32Exit>() => {
                "it exited in the middle of a call; a plugin returns, and only a command exits"
                    .to_owned()
            }
            words if words.contains(COPIED_TOO_MUCH) => {
                "a call to the host was handed more than the host copies at once; hand it over in \
                 smaller parts"
                    .to_owned()
            }
            words => words,
        },
    }
}

/// Where in the guest it happened, innermost first, with the names that the file has.
fn place(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let mut shown = Bounded {
        text: String::new(),
        room: MAX_BACKTRACE,
    };
    // Names come from the file, and may be as long as it likes.
    if write!(shown, "{backtrace}").is_err() {
        shown.text.push('…');
    }
    let frames = shown
        .text
        .lines()
        .filter(|line| !line.starts_with("note: ") && !line.ends_with("wasm backtrace:"));
    collapsed(frames)
}

/// Frames, each on a line of its own, and a recursion's once.
fn collapsed<'a>(frames: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let (mut last, mut again) = ("", 0);
    let tell = |text: &mut String, again| {
        if again > 0 {
            let _ = write!(text, "\n       the same {again} more times");
        }
    };
    for frame in frames {
        // "  3:   0x6c - module!name"; the innermost may lack the place.
        let place = frame.split_once(": ").map_or("", |(_, place)| place.trim());
        if place == last && !place.is_empty() {
            again += 1;
            continue;
        }
        tell(&mut text, std::mem::take(&mut again));
        last = place;
        let _ = write!(text, "\n{frame}");
    }
    tell(&mut text, again);
    text
}

/// A text that takes no more than there is room for.
struct Bounded {
    text: String,
    room: usize,
}

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        let fits = cut(more, self.room);
        self.text.push_str(fits);
        self.room -= fits.len();
        if fits.len() == more.len() {
            Ok(())
        } else {
            Err(std::fmt::Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::contract::scutwork::task::task_types::RetryReason;

    fn outcome(ending: Ending, was_cancelled: bool, refused: Option<Limit>) -> Outcome {
        Circumstances {
            plugin: &"thumb".parse().unwrap(),
            limits: &Limits::default(),
            ceiling: &Limits::CEILING,
            was_cancelled,
            refused,
            stderr: "thread panicked: no such pixel".into(),
            usage: Usage {
                cpu: Duration::from_micros(1_500),
                wall: Duration::from_secs(2),
                peak_memory: 3 << 20,
            },
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
        assert!(matches!(outcome(retry(), true, None), Outcome::Interrupted));
        assert!(matches!(
            outcome(retry(), false, None),
            Outcome::Failed(Failure::PluginError { .. })
        ));
    }

    #[test]
    fn a_trap_ends_with_what_the_guest_said_last() {
        let trap = Ending::Returned(Err(Trap::UnreachableCodeReached.into()));
        match outcome(trap, false, None) {
            Outcome::Failed(Failure::Trapped { message }) => {
                assert_eq!(
                    message,
                    "wasm trap: wasm `unreachable` instruction executed\n\
                     used: wall 2.0s, cpu 1.5ms, peak memory 3MiB\n\
                     stderr:\nthread panicked: no such pixel"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recursion_is_shown_once() {
        let frames = [
            "  0: m!f",
            "  1: 0x6c - m!f",
            "  2: 0x6c - m!f",
            "  3: 0x6c - m!f",
            "  4: 0x9 - m!g",
        ];
        assert_eq!(
            collapsed(frames.into_iter()),
            "\n  0: m!f\n  1: 0x6c - m!f\n       the same 2 more times\n  4: 0x9 - m!g"
        );
    }

    #[test]
    fn a_guest_that_copes_with_a_refused_growth_is_not_failed_for_it() {
        let ended = || {
            Ending::Returned(Ok(Ok(handler::Output {
                content_type: None,
                body: vec![],
            })))
        };
        assert!(matches!(
            outcome(ended(), false, Some(Limit::Memory)),
            Outcome::Done(_)
        ));
        let trap = Ending::Returned(Err(Trap::UnreachableCodeReached.into()));
        match outcome(trap, false, Some(Limit::Memory)) {
            Outcome::Failed(Failure::LimitExceeded { message, .. }) => assert_eq!(
                message.lines().next(),
                Some(
                    "memory limit 64MiB reached in plugin `thumb`; raise limits.memory in thumb.toml"
                )
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
            match outcome(Ending::Returned(Ok(Ok(output))), false, None) {
                Outcome::Done(output) => {
                    assert_eq!(output.content_type.is_some(), kept, "{said:?}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
