//! [`Finding`]: what one check came to, in one line.

use std::fmt;

use serde::Serialize;

use crate::cli::output;

/// The longest text in a finding, in characters; the broker's and files' own words among it.
const LONGEST: usize = 1000;

/// What one check came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at, in a word.
    check: &'static str,
    /// What was found, and what it means.
    finding: String,
    /// What to do. None where all is well.
    fix: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, within bounds that somebody should know of.
    Warn,
    /// Does not work, or loses something.
    Fail,
}

impl Finding {
    pub(super) fn ok(check: &'static str, finding: impl fmt::Display) -> Finding {
        Finding::new(Verdict::Ok, check, finding, None)
    }

    pub(super) fn warn(
        check: &'static str,
        finding: impl fmt::Display,
        fix: impl fmt::Display,
    ) -> Finding {
        Finding::new(Verdict::Warn, check, finding, Some(fix.to_string()))
    }

    pub(super) fn fail(
        check: &'static str,
        finding: impl fmt::Display,
        fix: impl fmt::Display,
    ) -> Finding {
        Finding::new(Verdict::Fail, check, finding, Some(fix.to_string()))
    }

    /// A failure whose own words say what to do.
    pub(super) fn fail_as_told(check: &'static str, error: impl fmt::Display) -> Finding {
        Finding::new(Verdict::Fail, check, error, None)
    }

    fn new(
        verdict: Verdict,
        check: &'static str,
        finding: impl fmt::Display,
        fix: Option<String>,
    ) -> Finding {
        Finding {
            verdict,
            check,
            finding: output::one_line(&finding.to_string(), LONGEST),
            fix: fix.map(|fix| output::one_line(&fix, LONGEST)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:4}  {:16}  {}", self.check, self.finding)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}
