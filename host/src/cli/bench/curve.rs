//! [`Curve`]: how one thing grows with another, as measured; for people, programs and the plot.

use serde_json::{Value, json};

use super::figures::{Figures, Unit};

/// Something measured at several sizes of something else.
pub(super) struct Curve {
    /// In one word; the plot's file is called so.
    pub(super) name: &'static str,
    /// What grows, with its unit.
    pub(super) along: &'static str,
    /// What is measured.
    pub(super) what: &'static str,
    pub(super) unit: Unit,
    pub(super) series: Vec<Series>,
}

/// One line of a curve.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) at: u64,
    pub(super) figures: Figures,
}

impl Series {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Series {
            name: name.into(),
            points: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: u64, values: impl IntoIterator<Item = f64>) {
        let figures = Figures::new(values.into_iter().collect());
        self.points.push(Point { at, figures });
    }
}

impl Curve {
    /// The headings of [`Curve::cells`].
    pub(super) fn headings() -> [String; 5] {
        ["CURVE", "ALONG", "AT", "OF", "MEASURED"].map(str::to_owned)
    }

    /// A row for each point, for people.
    pub(super) fn cells(&self) -> Vec<[String; 5]> {
        let mut points: Vec<(&Point, &str)> = self
            .series
            .iter()
            .flat_map(|series| series.points.iter().map(|point| (point, &*series.name)))
            .collect();
        points.sort_by_key(|(point, _)| point.at);
        let row = |(point, series): (&Point, &str)| {
            [
                self.name.to_owned(),
                self.along.to_owned(),
                point.at.to_string(),
                series.to_owned(),
                point.figures.shown(self.unit),
            ]
        };
        points.into_iter().map(row).collect()
    }

    /// The curve for programs.
    pub(super) fn json(&self) -> Value {
        let point = |point: &Point| json!({ "at": point.at, "figures": point.figures.json() });
        let series = |series: &Series| {
            json!({
                "name": series.name,
                "points": series.points.iter().map(point).collect::<Vec<_>>(),
            })
        };
        json!({
            "name": self.name,
            "along": self.along,
            "what": self.what,
            "unit": self.unit.word(),
            "series": self.series.iter().map(series).collect::<Vec<_>>(),
        })
    }
}
