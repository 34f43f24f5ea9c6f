//! `scutwork dead show`: all that is known of one dead letter.

use clap::Args;

use super::super::output;
use super::super::{Exit, Format, Global, Stopped};
use super::{PAGE, letter, not_there};
use crate::broker::{Buried, DeadLetters};

#[derive(Debug, Args)]
pub(in super::super) struct ShowArgs {
    /// The task's id
    id: String,
    /// Show the payload too: in JSON within, as text alone and as it is
    #[arg(long)]
    payload: bool,
}

/// Runs the command.
pub(super) async fn show(
    global: &Global,
    pass: &mut dyn DeadLetters,
    args: ShowArgs,
) -> Result<Exit, Stopped> {
    let found = find(pass, &args.id).await?;
    print(global, &found, args.payload);
    Ok(Exit::Done)
}

/// The letter of this id.
pub(super) async fn find(pass: &mut dyn DeadLetters, id: &str) -> Result<Buried, Stopped> {
    loop {
        let page = pass.next(PAGE).await?;
        if page.is_empty() {
            return Err(not_there(&[id]));
        }
        let is_it = |one: &Buried| one.message.id.as_deref() == Some(id);
        if let Some(found) = page.into_iter().find(is_it) {
            return Ok(found);
        }
    }
}

fn print(global: &Global, one: &Buried, payload: bool) {
    match (global.output, payload) {
        (Format::Json, true) => output::json(&letter::as_json_with_payload(one)),
        (Format::Json, false) => output::json(&letter::as_json(one)),
        (Format::Text, true) => output::body(&one.message.body),
        (Format::Text, false) => {
            for (name, value) in letter::as_lines(one) {
                output::line(&format!("{name:13} {value}"));
            }
        }
    }
}
