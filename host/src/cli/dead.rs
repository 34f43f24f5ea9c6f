//! `scutwork dead`: what an operator does with dead letters. One pass over them a command.

mod choice;
mod export;
mod letter;
mod list;
mod settle;
mod show;

use std::sync::Arc;

use clap::Subcommand;

use self::settle::Order;
use super::{Exit, Global, Stopped, connect, log, output};
use crate::broker::{Buried, DeadLetters, NoticeSink};
use crate::config::Config;

/// How many letters are looked at together.
const PAGE: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// Show what tasks died of, grouped by plugin and error
    List(list::ListArgs),
    /// Show all that is known of one dead letter
    Show(show::ShowArgs),
    /// Put dead letters back on their queue, from the first attempt on
    Retry(settle::RetryArgs),
    /// Drop dead letters for good
    Discard(settle::DiscardArgs),
    /// Write dead letters with their payloads as JSON lines
    Export(export::ExportArgs),
}

/// A command whose arguments were checked.
enum Checked {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Settle(Order),
    Export(export::ExportArgs),
}

/// Runs the command.
pub(super) async fn dead(
    global: &Global,
    config: Config,
    command: DeadCommand,
) -> Result<Exit, Stopped> {
    let [queue] = config.queues.as_slice() else {
        return Err(Stopped::usage(
            "dead letters are those of one queue; give --queue once",
        ));
    };
    let checked = match command {
        DeadCommand::List(args) => Checked::List(args),
        DeadCommand::Show(args) => Checked::Show(args),
        DeadCommand::Retry(args) => Checked::Settle(args.check(config.rules.max_payload)?),
        DeadCommand::Discard(args) => Checked::Settle(args.check()?),
        DeadCommand::Export(args) => Checked::Export(args),
    };
    let notices: NoticeSink = Arc::new(|notice| log::tell_notice(&notice));
    let broker = connect(&config.broker, notices).await?;
    let mut pass = broker.dead_letters(queue).await?;
    let ended = checked.run(global, pass.as_mut()).await;
    let closed = pass.close().await;
    broker.close().await;
    let exit = ended?;
    closed?;
    Ok(exit)
}

/// One dead letter of the queue, which stays where it is.
pub(super) async fn find(config: &Config, id: &str) -> Result<Buried, Stopped> {
    let [queue] = config.queues.as_slice() else {
        return Err(Stopped::usage(
            "a dead letter is one of one queue; give --queue once",
        ));
    };
    let notices: NoticeSink = Arc::new(|notice| log::tell_notice(&notice));
    let broker = connect(&config.broker, notices).await?;
    let mut pass = broker.dead_letters(queue).await?;
    let found = show::find(pass.as_mut(), id).await;
    let closed = pass.close().await;
    broker.close().await;
    let found = found?;
    closed?;
    Ok(found)
}

impl Checked {
    async fn run(self, global: &Global, pass: &mut dyn DeadLetters) -> Result<Exit, Stopped> {
        match self {
            Checked::List(args) => list::list(global, pass, args).await,
            Checked::Show(args) => show::show(global, pass, args).await,
            Checked::Settle(order) => order.run(global, pass).await,
            Checked::Export(args) => export::export(global, pass, args).await,
        }
    }
}

fn not_there(ids: &[&str]) -> Stopped {
    let ids = output::one_line(&ids.join(", "), 2000);
    Stopped::not_found(format!(
        "no dead letter has the id {ids}; `scutwork dead list --flat` shows those that there are"
    ))
}

/// `1 dead letter`, `2 dead letters`.
fn one_of(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}
