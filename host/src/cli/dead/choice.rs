//! [`Choice`]: which dead letters a command is about.

use std::collections::BTreeSet;

use clap::Args;

use super::super::Stopped;
use super::letter;
use crate::broker::Buried;

/// Every filter that is given must fit.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Those of this plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Those that died of this kind of failure, for example rejected
    #[arg(long, value_name = "KIND")]
    reason: Option<String>,
    /// Those with this code, the plugin's own word for the failure
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ChoiceArgs {
    /// The tasks' ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Which dead letters, checked.
pub(super) enum Choice {
    /// One for each of these ids; found ones are taken out.
    Ids(BTreeSet<String>),
    /// Those that fit.
    Fitting(FilterArgs),
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        self.plugin.is_none() && self.reason.is_none() && self.code.is_none()
    }

    /// Whether every filter that is given fits.
    pub(super) fn fits(&self, one: &Buried) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        fits(&self.plugin, letter::plugin(one))
            && fits(&self.reason, Some(letter::reason(one)))
            && fits(&self.code, letter::code(one))
    }
}

impl ChoiceArgs {
    /// Ids, filters or all: never by default, and never two of them.
    pub(super) fn check(self) -> Result<Choice, Stopped> {
        match (self.ids.is_empty(), self.filter.is_empty(), self.all) {
            (false, true, false) => Ok(Choice::Ids(self.ids.into_iter().collect())),
            (true, false, false) | (true, true, true) => Ok(Choice::Fitting(self.filter)),
            (true, true, false) => Err(Stopped::usage(
                "say which dead letters: ids, --plugin, --reason, --code, or --all",
            )),
            _ => Err(Stopped::usage(
                "give either ids, or filters, or --all; they do not go together",
            )),
        }
    }
}

impl Choice {
    /// Whether this letter is meant. An id is good for one letter.
    pub(super) fn takes(&mut self, one: &Buried) -> bool {
        match self {
            Choice::Ids(ids) => one.message.id.as_ref().is_some_and(|id| ids.remove(id)),
            Choice::Fitting(filter) => filter.fits(one),
        }
    }

    /// Whether no other letter can be meant.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Choice::Ids(ids) => ids.is_empty(),
            Choice::Fitting(_) => false,
        }
    }

    /// The ids that no letter had.
    pub(super) fn missing(&self) -> Vec<&str> {
        match self {
            Choice::Ids(ids) => ids.iter().map(String::as_str).collect(),
            Choice::Fitting(_) => Vec::new(),
        }
    }
}
