//! [`Secrets`]: values that one run knows and nobody may read in what it says.

use std::borrow::Cow;
use std::fmt;

use crate::outcome::{Failure, Outcome};

/// What is shown in a secret's place.
const HIDDEN: &str = "[secret]";
/// Values shorter than this are not looked for: they are in every other word.
const SHORTEST: usize = 4;

/// What to hide.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hides a value from now on, and each line of one that has several.
    pub(super) fn add(&mut self, value: &str) {
        let lines = value.lines().map(str::trim).filter(|line| *line != value);
        let worth_hiding = std::iter::once(value)
            .chain(lines)
            .filter(|text| text.len() >= SHORTEST)
            .map(str::to_owned);
        self.0.extend(worth_hiding);
        // The longest first, so that what holds another is hidden whole.
        self.0.sort_by_key(|text| std::cmp::Reverse(text.len()));
        self.0.dedup();
    }

    /// The text without the secrets in it.
    pub(super) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), HIDDEN));
            }
        }
        text
    }

    /// The outcome without the secrets in what it says of a failure. An output is the guest's own.
    pub(super) fn hide_in(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Failed(failure) = &mut outcome {
            let hide = |text: &mut String| {
                if let Cow::Owned(hidden) = self.hide(text) {
                    *text = hidden;
                }
            };
            match failure {
                Failure::PluginError { code, message, .. }
                | Failure::Rejected { code, message } => {
                    hide(code);
                    hide(message);
                }
                Failure::Trapped { message }
                | Failure::LimitExceeded { message, .. }
                | Failure::UnknownPlugin { message } => hide(message),
                Failure::BadTask(_) | Failure::Crashed { .. } => {}
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_whole_and_line_by_line_and_in_no_debug_output() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2");
        secrets.add("hunter2-and-more");
        secrets.add("-----BEGIN\nAAAABBBB\n");
        secrets.add("no");
        assert_eq!(
            secrets.hide("hunter2 hunter2-and-more AAAABBBB no"),
            "[secret] [secret] [secret] no"
        );
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }
}
