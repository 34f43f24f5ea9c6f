//! [`Figures`]: one thing measured several times, and [`Row`]: ours beside what it is held against.

use std::time::Duration;

use serde_json::{Value, json};

/// One thing measured several times. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Figures(Vec<f64>);

/// What the numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Tasks in a second.
    PerSecond,
    /// Kibibytes.
    Kib,
    /// How often something happened.
    Times,
}

/// What a row is held against.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    /// The baseline, in a few words.
    pub(super) what: &'static str,
    /// The same thing measured there, run by run in turn with ours.
    pub(super) figures: Figures,
    /// How the two are compared.
    pub(super) by: Comparison,
}

/// How ours is compared with a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Ours divided by the baseline.
    Ratio,
    /// Ours less the baseline.
    Difference,
}

/// What the project wants to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    /// The comparison is at most this.
    AtMost(f64),
    /// The comparison is at least this.
    AtLeast(f64),
    /// Our own figure is at most this.
    OursAtMost(f64),
    /// Our own figure is at least this.
    OursAtLeast(f64),
    /// It happens in no run, where a median would pass over the one in which it did.
    Never,
}

/// One line of the results.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) bench: &'static str,
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) ours: Figures,
    pub(super) beside: Option<Beside>,
    pub(super) reach: Option<Reach>,
}

/// A time as [`Unit::Millis`] counts it.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Figures {
    /// # Panics
    /// When there are none: every bench runs at least once.
    pub(super) fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "every bench runs at least once");
        values.sort_by(f64::total_cmp);
        Figures(values)
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The value that a share of them does not exceed; the nearest one that was measured.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        self.0[((last as f64) * share).round() as usize]
    }

    pub(super) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    pub(super) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    pub(super) fn shown(&self, unit: Unit) -> String {
        if self.0.len() == 1 {
            return unit.show(self.median());
        }
        format!(
            "{} ({}..{})",
            unit.show(self.median()),
            unit.number(self.min()),
            unit.number(self.max())
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "values": self.0 })
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        format!("{} {}", self.number(value), self.word())
    }

    /// Three digits, or all that are before the point.
    fn number(self, value: f64) -> String {
        match value.abs() {
            size if size >= 100.0 || self == Unit::Times => format!("{value:.0}"),
            size if size >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Unit::Micros => "us",
            Unit::Millis => "ms",
            Unit::PerSecond => "tasks/s",
            Unit::Kib => "KiB",
            Unit::Times => "times",
        }
    }
}

impl Row {
    /// Ours against the baseline, if there is one.
    fn compared(&self) -> Option<f64> {
        let beside = self.beside.as_ref()?;
        let (ours, theirs) = (self.ours.median(), beside.figures.median());
        Some(match beside.by {
            Comparison::Ratio => ours / theirs,
            Comparison::Difference => ours - theirs,
        })
    }

    /// None: nothing is to be reached, or there is nothing to compare with.
    fn is_reached(&self) -> Option<bool> {
        Some(match self.reach? {
            Reach::AtMost(most) => self.compared()? <= most,
            Reach::AtLeast(least) => self.compared()? >= least,
            Reach::OursAtMost(most) => self.ours.median() <= most,
            Reach::OursAtLeast(least) => self.ours.median() >= least,
            Reach::Never => self.ours.max() == 0.0,
        })
    }

    /// The headings of [`Row::cells`].
    pub(super) fn headings() -> [String; 6] {
        ["BENCH", "WHAT", "OURS", "BESIDE", "COMPARED", "REACH"].map(str::to_owned)
    }

    /// The row for people.
    pub(super) fn cells(&self) -> [String; 6] {
        let beside = self.beside.as_ref().map_or(String::new(), |beside| {
            format!("{} {}", beside.what, beside.figures.shown(self.unit))
        });
        let compared = match (&self.beside, self.compared()) {
            (Some(beside), Some(value)) => match beside.by {
                Comparison::Ratio => format!("{value:.2}x"),
                Comparison::Difference => format!("{value:+.2} {}", self.unit.word()),
            },
            _ => String::new(),
        };
        let reach = match (self.reach, self.is_reached()) {
            (Some(reach), Some(reached)) => {
                format!(
                    "{} {}",
                    reach.shown(self),
                    if reached { "yes" } else { "NO" }
                )
            }
            _ => String::new(),
        };
        [
            self.bench.to_owned(),
            self.what.clone(),
            self.ours.shown(self.unit),
            beside,
            compared,
            reach,
        ]
    }

    /// The row for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "bench": self.bench,
            "what": self.what,
            "unit": self.unit.word(),
            "ours": self.ours.json(),
            "beside": self.beside.as_ref().map(|beside| json!({
                "what": beside.what,
                "figures": beside.figures.json(),
            })),
            "compared": self.compared(),
            "reach": self.reach.map(|reach| reach.shown(self)),
            "reached": self.is_reached(),
        })
    }
}

impl Reach {
    fn shown(self, row: &Row) -> String {
        let is_ratio = row
            .beside
            .as_ref()
            .is_some_and(|beside| beside.by == Comparison::Ratio);
        let compared = |value: f64| {
            if is_ratio {
                format!("{value}x")
            } else {
                format!("{value:+} {}", row.unit.word())
            }
        };
        match self {
            Reach::AtMost(most) => format!("<= {}", compared(most)),
            Reach::AtLeast(least) => format!(">= {}", compared(least)),
            Reach::OursAtMost(most) => format!("<= {most} {}", row.unit.word()),
            Reach::OursAtLeast(least) => format!(">= {least} {}", row.unit.word()),
            Reach::Never => "never".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], theirs: &[f64], by: Comparison, reach: Reach) -> Row {
        Row {
            bench: "b",
            what: "w".to_owned(),
            unit: Unit::Micros,
            ours: Figures::new(ours.to_vec()),
            beside: Some(Beside {
                what: "bare",
                figures: Figures::new(theirs.to_vec()),
                by,
            }),
            reach: Some(reach),
        }
    }

    #[test]
    fn medians_are_compared_and_held_against_the_reach() {
        let row = row(
            &[12.0, 10.0, 50.0],
            &[8.0, 10.0, 9.0],
            Comparison::Ratio,
            Reach::AtMost(1.25),
        );
        assert_eq!(
            row.cells(),
            [
                "b",
                "w",
                "12.0 us (10.0..50.0)",
                "bare 9.00 us (8.00..10.0)",
                "1.33x",
                "<= 1.25x NO"
            ]
        );
        assert_eq!(row.json()["reached"], false);
    }

    #[test]
    fn what_is_never_to_happen_happens_in_no_run() {
        let lost = |ours: &[f64]| row(ours, &[1.0], Comparison::Ratio, Reach::Never);
        assert_eq!(lost(&[0.0, 0.0, 0.0]).cells()[5], "never yes");
        assert_eq!(lost(&[0.0, 1.0, 0.0]).cells()[5], "never NO");
    }

    #[test]
    fn a_difference_keeps_its_sign_and_unit() {
        let row = row(&[3.0], &[2.5], Comparison::Difference, Reach::AtMost(1.0));
        assert_eq!(row.cells()[4], "+0.50 us");
        assert_eq!(row.cells()[5], "<= +1 us yes");
    }
}
