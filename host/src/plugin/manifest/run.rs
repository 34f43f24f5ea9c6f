//! The section `[run]`: how a plugin is called, and what a command means by its exit.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, de::Error};

use super::one_or_more;
use crate::sandbox::command::{CommandSettings, ExitCodes};

/// What one argument may have, and all of them together, in bytes.
const MAX_ARGS: usize = 64 << 10;
/// What a content type may have, in bytes: as much as a message's property holds.
const MAX_CONTENT_TYPE: usize = 255;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AskedRun {
    #[serde(deserialize_with = "one_or_more")]
    pub(super) concurrency: Option<NonZeroU32>,
    #[serde(deserialize_with = "args")]
    args: Vec<String>,
    #[serde(deserialize_with = "content_type")]
    content_type: Option<String>,
    exit: CheckedExit,
}

impl AskedRun {
    pub(super) fn command(self) -> CommandSettings {
        CommandSettings {
            args: self.args,
            content_type: self.content_type,
            exit: self.exit.0,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedExit {
    done: BTreeSet<u32>,
    retry: BTreeSet<u32>,
    reject: BTreeSet<u32>,
}

#[derive(Default, Deserialize)]
#[serde(try_from = "AskedExit")]
struct CheckedExit(ExitCodes);

impl TryFrom<AskedExit> for CheckedExit {
    type Error = String;

    fn try_from(asked: AskedExit) -> Result<Self, String> {
        let AskedExit {
            done,
            retry,
            reject,
        } = asked;
        let twice = done
            .intersection(&retry)
            .chain(done.intersection(&reject))
            .chain(retry.intersection(&reject))
            .next();
        match twice {
            Some(code) => Err(format!("exit code {code} cannot mean two things")),
            None => Ok(CheckedExit(ExitCodes {
                done,
                retry,
                reject,
            })),
        }
    }
}

fn args<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let args = Vec::<String>::deserialize(deserializer)?;
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(D::Error::custom("no argument can hold a zero byte"));
    }
    if args.iter().map(|arg| arg.len() + 1).sum::<usize>() > MAX_ARGS {
        return Err(D::Error::custom(
            "arguments of more than 64KiB; put them into a file and grant it in [files]",
        ));
    }
    Ok(args)
}

fn content_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let said = String::deserialize(deserializer)?;
    if said.len() > MAX_CONTENT_TYPE || said.contains(char::is_control) || said.is_empty() {
        return Err(D::Error::custom(
            "that is no content type; write for example \"text/html\"",
        ));
    }
    Ok(Some(said))
}
