//! `scutwork dead retry` and `scutwork dead discard`: back to the queue, or away for good.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::output;
use super::super::submit::check_size;
use super::super::submit::payload::Payload;
use super::super::{Exit, Format, Global, Stopped};
use super::choice::{Choice, ChoiceArgs};
use super::letter::UNKNOWN;
use super::{PAGE, not_there, one_of};
use crate::broker::{Buried, DeadLetters, Kept};

#[derive(Debug, Args)]
pub(in super::super) struct RetryArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Only show which
    #[arg(long)]
    dry_run: bool,
    /// Not faster than this, for example 50/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<u32>,
    /// Another payload, for one task: a text, @FILE, or - for stdin
    #[arg(long, value_name = "PAYLOAD", allow_hyphen_values = true)]
    payload: Option<String>,
}

#[derive(Debug, Args)]
pub(in super::super) struct DiscardArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Only show which
    #[arg(long)]
    dry_run: bool,
}

/// What becomes of the letters that are meant, checked.
pub(super) struct Order {
    choice: Choice,
    deed: Deed,
    dry_run: bool,
    rate: Option<u32>,
}

enum Deed {
    Retry { payload: Option<Bytes> },
    Discard,
}

/// How far an order has got.
#[derive(Default)]
struct Tally {
    done: u64,
    kept: u64,
}

impl RetryArgs {
    /// Checks all that can be wrong before a broker is asked.
    pub(super) fn check(self, max_payload: u64) -> Result<Order, Stopped> {
        let choice = self.choice.check()?;
        let payload = match self.payload {
            None => None,
            Some(argument) => {
                if !matches!(&choice, Choice::Ids(ids) if ids.len() == 1) {
                    return Err(Stopped::usage("--payload is for one task; give one id"));
                }
                let payload = Payload::whole(&argument)?;
                check_size(payload.len() as u64, max_payload)?;
                Some(payload)
            }
        };
        Ok(Order {
            choice,
            deed: Deed::Retry { payload },
            dry_run: self.dry_run,
            rate: self.rate,
        })
    }
}

impl DiscardArgs {
    /// Checks all that can be wrong before a broker is asked.
    pub(super) fn check(self) -> Result<Order, Stopped> {
        Ok(Order {
            choice: self.choice.check()?,
            deed: Deed::Discard,
            dry_run: self.dry_run,
            rate: None,
        })
    }
}

impl Order {
    /// Runs the command, and shows the id of each letter once it is settled.
    pub(super) async fn run(
        mut self,
        global: &Global,
        pass: &mut dyn DeadLetters,
    ) -> Result<Exit, Stopped> {
        let mut tally = Tally::default();
        let (chunk, mut ticks) = pace(self.rate);
        while !self.choice.is_complete() {
            let page = pass.next(chunk).await?;
            if page.is_empty() {
                break;
            }
            let meant: Vec<_> = page
                .into_iter()
                .filter(|one| self.choice.takes(one))
                .collect();
            if meant.is_empty() {
                continue;
            }
            if let Some(ticks) = &mut ticks
                && !self.dry_run
            {
                ticks.tick().await;
            }
            self.settle(global, pass, meant, &mut tally).await?;
        }
        if global.quiet == 0 {
            let done = one_of(tally.done, "dead letter");
            output::say(&format!("{done} {}", self.what_was_done()));
        }
        let missing = self.choice.missing();
        if !missing.is_empty() {
            return Err(not_there(&missing));
        }
        Ok(if tally.kept == 0 {
            Exit::Done
        } else {
            Exit::No
        })
    }

    async fn settle(
        &self,
        global: &Global,
        pass: &mut dyn DeadLetters,
        mut letters: Vec<Buried>,
        tally: &mut Tally,
    ) -> Result<(), Stopped> {
        let ids: Vec<_> = letters.iter().map(|one| one.message.id.clone()).collect();
        let kept = match (&self.deed, self.dry_run) {
            (_, true) => Vec::new(),
            (Deed::Retry { payload }, false) => {
                if let Some(payload) = payload {
                    for letter in &mut letters {
                        letter.message.body = payload.clone();
                    }
                }
                pass.retry(letters).await?
            }
            (Deed::Discard, false) => pass.discard(letters).await?,
        };
        for Kept { id, why } in &kept {
            let id = output::one_line(id.as_deref().unwrap_or(UNKNOWN), 200);
            output::complain(&format!("{id} is still a dead letter: {why}"));
        }
        tally.kept += kept.len() as u64;
        tally.done += (ids.len() - kept.len()) as u64;
        for id in ids {
            if kept.iter().any(|kept| kept.id == id) {
                continue;
            }
            match global.output {
                Format::Json => output::json(&json!({ "task": id })),
                Format::Text => {
                    output::line(&output::one_line(id.as_deref().unwrap_or(UNKNOWN), 200))
                }
            }
        }
        Ok(())
    }

    fn what_was_done(&self) -> &'static str {
        match (&self.deed, self.dry_run) {
            (Deed::Retry { .. }, false) => "put back on the queue",
            (Deed::Retry { .. }, true) => "would be put back on the queue",
            (Deed::Discard, false) => "discarded",
            (Deed::Discard, true) => "would be discarded",
        }
    }
}

/// How many letters at a time, and how often: a tenth of a second's worth where that is at least one.
fn pace(rate: Option<u32>) -> (usize, Option<Interval>) {
    let Some(rate) = rate else {
        return (PAGE, None);
    };
    let chunk = (rate / 10).max(1);
    let mut ticks = interval(Duration::from_secs(1) * chunk / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (chunk as usize, Some(ticks))
}

/// `N/s`, or `N`.
fn parse_rate(text: &str) -> Result<u32, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(rate) if rate > 0 => Ok(rate),
        Ok(_) | Err(_) => Err("write for example 50/s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second_and_never_none() {
        assert_eq!(parse_rate("50/s"), Ok(50));
        assert_eq!(parse_rate("7"), Ok(7));
        for wrong in ["0/s", "0", "fast", "-1/s", "5/m"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
