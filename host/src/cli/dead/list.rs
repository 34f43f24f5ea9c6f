//! `scutwork dead list`: the dead letters, grouped by what they died of, or one by one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::super::output::{self, one_line};
use super::super::{Exit, Format, Global, Stopped};
use super::choice::FilterArgs;
use super::letter::{self, UNKNOWN};
use super::{PAGE, one_of};
use crate::broker::{Buried, DeadLetters};
use crate::outcome::USED;

/// How many groups are told apart, so that errors that never repeat do not fill the memory.
const MOST_GROUPS: usize = 1000;

/// How much of an error tells one group from another, in characters.
const ERROR_SHOWN: usize = 200;

#[derive(Debug, Args)]
pub(in super::super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// One line for each letter
    #[arg(long)]
    flat: bool,
    /// With --flat: how many at most
    #[arg(long, value_name = "N", default_value_t = 100, requires = "flat")]
    limit: usize,
}

/// What the letters of a group have in common. Where the plugin has a word for the failure, its error
/// texts may differ.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    plugin: String,
    reason: String,
    code: Option<String>,
    error: Option<String>,
}

/// Letters that died of the same.
struct Group {
    count: u64,
    first: Option<SystemTime>,
    last: Option<SystemTime>,
    example: Option<String>,
    error: String,
}

/// Runs the command.
pub(super) async fn list(
    global: &Global,
    pass: &mut dyn DeadLetters,
    args: ListArgs,
) -> Result<Exit, Stopped> {
    if args.flat {
        return flat(global, pass, &args).await;
    }
    let mut groups: BTreeMap<Kind, Group> = BTreeMap::new();
    let mut others = 0;
    loop {
        let page = pass.next(PAGE).await?;
        if page.is_empty() {
            break;
        }
        for one in page.iter().filter(|one| args.filter.fits(one)) {
            let kind = Kind::of(one);
            if let Some(group) = groups.get_mut(&kind) {
                group.add(one);
            } else if groups.len() < MOST_GROUPS {
                groups.insert(kind, Group::of(one));
            } else {
                others += 1;
            }
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    match global.output {
        Format::Json => show_json(&groups, others),
        Format::Text => show_text(global, &groups, others),
    }
    Ok(Exit::Done)
}

async fn flat(
    global: &Global,
    pass: &mut dyn DeadLetters,
    args: &ListArgs,
) -> Result<Exit, Stopped> {
    let mut left = args.limit;
    while left > 0 {
        let page = pass.next(PAGE).await?;
        if page.is_empty() {
            return Ok(Exit::Done);
        }
        for one in page.iter().filter(|one| args.filter.fits(one)).take(left) {
            left -= 1;
            match global.output {
                Format::Json => output::json(&letter::as_json(one)),
                Format::Text => output::line(&as_line(one)),
            }
        }
    }
    if global.quiet == 0 {
        output::say(&format!("the first {}; --limit N shows more", args.limit));
    }
    Ok(Exit::Done)
}

impl Kind {
    fn of(one: &Buried) -> Kind {
        let code = letter::code(one).map(str::to_owned);
        Kind {
            plugin: letter::plugin(one).unwrap_or(UNKNOWN).to_owned(),
            reason: letter::reason(one).to_owned(),
            error: match code {
                Some(_) => None,
                None => Some(one_line(cause(letter::error(one)), ERROR_SHOWN)),
            },
            code,
        }
    }
}

/// An error's text without what differs from run to run.
fn cause(error: &str) -> &str {
    error.split_once(USED).map_or(error, |(cause, _)| cause)
}

impl Group {
    fn of(one: &Buried) -> Group {
        Group {
            count: 1,
            first: letter::at(one),
            last: letter::at(one),
            example: one.message.id.clone(),
            error: one_line(letter::error(one), ERROR_SHOWN),
        }
    }

    fn add(&mut self, one: &Buried) {
        self.count += 1;
        if let Some(at) = letter::at(one) {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
        }
        if self.example.is_none() {
            self.example = one.message.id.clone();
        }
    }
}

fn as_line(one: &Buried) -> String {
    let at = letter::show_time(letter::at(one));
    let code = letter::code(one).map_or_else(String::new, |code| format!(" {code}"));
    let line = format!(
        "{}  {}  {}  {}{code}  {}",
        one.message.id.as_deref().unwrap_or(UNKNOWN),
        at.as_deref().unwrap_or(UNKNOWN),
        letter::plugin(one).unwrap_or(UNKNOWN),
        letter::reason(one),
        letter::error(one),
    );
    one_line(&line, 400)
}

fn show_json(groups: &[(Kind, Group)], others: u64) {
    let total: u64 = groups.iter().map(|(_, group)| group.count).sum();
    let groups: Vec<_> = groups
        .iter()
        .map(|(kind, group)| {
            json!({
                "plugin": kind.plugin,
                "reason": kind.reason,
                "code": kind.code,
                "error": group.error,
                "count": group.count,
                "first": letter::show_time(group.first),
                "last": letter::show_time(group.last),
                "example": group.example,
            })
        })
        .collect();
    output::json(&json!({ "total": total + others, "groups": groups, "ungrouped": others }));
}

fn show_text(global: &Global, groups: &[(Kind, Group)], others: u64) {
    let total: u64 = groups.iter().map(|(_, group)| group.count).sum();
    for (kind, group) in groups {
        let code = kind
            .code
            .as_ref()
            .map_or_else(String::new, |code| format!(" {code}"));
        let died = format!("{}  {}{code}", kind.plugin, kind.reason);
        output::line(&format!("{:>7}  {}", group.count, one_line(&died, 200)));
        if !group.error.is_empty() {
            output::line(&format!("         {}", group.error));
        }
        let time = |time| letter::show_time(time).unwrap_or_else(|| UNKNOWN.to_owned());
        output::line(&format!(
            "         first {}, last {}, for example {}",
            time(group.first),
            time(group.last),
            one_line(group.example.as_deref().unwrap_or(UNKNOWN), 200),
        ));
    }
    if others > 0 {
        output::line(&format!(
            "{others:>7}  of other kinds; narrow it down by --plugin or --reason"
        ));
    }
    if global.quiet == 0 {
        output::say(&one_of(total + others, "dead letter"));
    }
}
