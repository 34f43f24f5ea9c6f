//! WASI commands: how a task reaches a program that knows nothing of tasks, and what its exit means.

use std::collections::{BTreeMap, BTreeSet};

use wasmtime_wasi::p2::pipe::MemoryInputPipe;

use super::contract::exports::scutwork::task::handler;
use super::contract::scutwork::task::task_types::{RejectReason, RetryReason};
use super::limits::Limits;
use super::stdio::Sheet;
use crate::task::Task;

/// `EX_TEMPFAIL` of sysexits.h: a failure that may pass.
const TEMPORARY: u32 = 75;
/// What the names of a task's variables begin with. No manifest sets such a name.
pub const TASK_VARIABLES: &str = "SCUTWORK_";

/// How a plugin that is a WASI command is called, and what it means by its exit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSettings {
    /// What follows the plugin's name, which is the first argument.
    pub args: Vec<String>,
    /// What the output is, as a command cannot say it.
    pub content_type: Option<String>,
    /// What its exit codes mean.
    pub exit: ExitCodes,
}

/// Exit codes that mean something else than they usually do: 0 done, 75 a retry, any other a reject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitCodes {
    /// The task is done.
    pub done: BTreeSet<u32>,
    /// It may work later.
    pub retry: BTreeSet<u32>,
    /// It can never work.
    pub reject: BTreeSet<u32>,
}

/// What an exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitMeaning {
    /// The task is done, and its output is what was written to stdout.
    Done,
    /// It may work later.
    Retry,
    /// It can never work.
    Reject,
}

impl ExitCodes {
    /// What a code means.
    pub fn meaning(&self, code: u32) -> ExitMeaning {
        if self.done.contains(&code) {
            ExitMeaning::Done
        } else if self.retry.contains(&code) {
            ExitMeaning::Retry
        } else if self.reject.contains(&code) {
            ExitMeaning::Reject
        } else {
            match code {
                0 => ExitMeaning::Done,
                TEMPORARY => ExitMeaning::Retry,
                _ => ExitMeaning::Reject,
            }
        }
    }
}

/// One run of a command: what it is called with, and what it has written.
pub(super) struct CommandCall {
    pub(super) args: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) stdin: MemoryInputPipe,
    pub(super) stdout: Sheet,
    /// What one call to the host may copy from the guest, in bytes: a program may read the whole
    /// payload in one go, into a buffer that it made larger than that.
    pub(super) copied: usize,
}

impl CommandCall {
    /// The call that hands over this task.
    pub(super) fn new(
        settings: &CommandSettings,
        task: &Task,
        limits: &Limits,
        max_attempts: u32,
    ) -> CommandCall {
        let args = std::iter::once(task.plugin.to_string())
            .chain(settings.args.iter().cloned())
            .collect();
        CommandCall {
            args,
            environment: environment(task, limits, max_attempts),
            stdin: MemoryInputPipe::new(task.payload.clone()),
            stdout: Sheet::new(limits.output),
            copied: task.payload.len().saturating_mul(2),
        }
    }

    /// What the command meant by its exit. `stderr` is the end of what it wrote there.
    pub(super) fn result(
        &self,
        settings: &CommandSettings,
        code: u32,
        stderr: &str,
    ) -> Result<handler::Output, handler::Failure> {
        let why = || {
            let message = match stderr {
                "" => format!("the command exited with {code} and wrote nothing to stderr"),
                stderr => stderr.to_owned(),
            };
            (format!("exit-{code}"), message)
        };
        match settings.exit.meaning(code) {
            ExitMeaning::Done => Ok(handler::Output {
                content_type: settings.content_type.clone(),
                body: self.stdout.take(),
            }),
            ExitMeaning::Retry => {
                let (code, message) = why();
                Err(handler::Failure::Retry(RetryReason {
                    code,
                    message,
                    delay: None,
                }))
            }
            ExitMeaning::Reject => {
                let (code, message) = why();
                Err(handler::Failure::Reject(RejectReason { code, message }))
            }
        }
    }
}

/// A task's fields as variables. A header's name is written in capitals, with `_` for all but letters
/// and digits; of two that become one name, the first counts.
fn environment(task: &Task, limits: &Limits, max_attempts: u32) -> Vec<(String, String)> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        // What holds the end of a C string cannot be a variable.
        if !value.contains('\0') {
            variables
                .entry(format!("{TASK_VARIABLES}{name}"))
                .or_insert_with(|| value.to_owned());
        }
    };
    set("ID", &task.id);
    set("PLUGIN", task.plugin.as_str());
    set("ATTEMPT", &task.attempt.to_string());
    set("MAX_ATTEMPTS", &max_attempts.to_string());
    set("TIMEOUT_MS", &limits.timeout.as_millis().to_string());
    if let Some(content_type) = &task.content_type {
        set("CONTENT_TYPE", content_type);
    }
    for (name, value) in &task.headers {
        let name: String = name
            .chars()
            .map(|letter| match letter.to_ascii_uppercase() {
                letter if letter.is_ascii_alphanumeric() => letter,
                _ => '_',
            })
            .collect();
        set(&format!("HEADER_{name}"), value);
    }
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_code_means_what_it_usually_does_unless_it_is_listed() {
        let codes = ExitCodes {
            done: [3].into(),
            retry: [111, 1].into(),
            reject: [75, 0].into(),
        };
        for (codes, code, meaning) in [
            (&ExitCodes::default(), 0, ExitMeaning::Done),
            (&ExitCodes::default(), 75, ExitMeaning::Retry),
            (&ExitCodes::default(), 1, ExitMeaning::Reject),
            (&codes, 0, ExitMeaning::Reject),
            (&codes, 75, ExitMeaning::Reject),
            (&codes, 3, ExitMeaning::Done),
            (&codes, 111, ExitMeaning::Retry),
            (&codes, 2, ExitMeaning::Reject),
        ] {
            assert_eq!(codes.meaning(code), meaning, "{code}");
        }
    }

    #[test]
    fn a_header_becomes_a_variable_and_the_first_of_one_name_counts() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let task = Task {
            id: "7".into(),
            plugin: "thumb".parse().unwrap(),
            payload: Bytes::new(),
            content_type: None,
            headers: vec![
                header("x-trace.id", "one"),
                header("X_Trace_Id", "two"),
                header("größe", "L"),
                header("cut", "a\0b"),
            ],
            attempt: 2,
        };
        let variables = environment(&task, &Limits::default(), 5);
        let expected = [
            ("SCUTWORK_ATTEMPT", "2"),
            ("SCUTWORK_HEADER_GR__E", "L"),
            ("SCUTWORK_HEADER_X_TRACE_ID", "one"),
            ("SCUTWORK_ID", "7"),
            ("SCUTWORK_MAX_ATTEMPTS", "5"),
            ("SCUTWORK_PLUGIN", "thumb"),
            ("SCUTWORK_TIMEOUT_MS", "300000"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| header(name, value)));
    }
}
