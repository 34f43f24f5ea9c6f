//! Draws curves as SVG: both axes logarithmic, with a legend, and readable on light and dark.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::curve::{Curve, Point, Series};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 300.0;

/// Lines that can be told apart; more of them repeat from the first.
const STYLES: usize = 4;

/// Colours for both schemes. Lines differ in their dashes too, for whoever sees no colours.
const STYLE: &str = "\
.paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e } .grid { stroke: #d1d9e0 }
.axis { stroke: #59636e; fill: none } .line { fill: none; stroke-width: 2 } .spread { stroke-width: 1 }
.c0 { stroke: #0b62c4; fill: #0b62c4 } .c1 { stroke: #b9400a; fill: #b9400a }
.c2 { stroke: #157a37; fill: #157a37 } .c3 { stroke: #7e22ce; fill: #7e22ce }
.line.c0, .line.c1, .line.c2, .line.c3 { fill: none }
.line.c1 { stroke-dasharray: 7 4 } .line.c2 { stroke-dasharray: 2 3 } .line.c3 { stroke-dasharray: 9 3 2 3 }
text { font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .ink { fill: #f0f6fc } .soft { fill: #9198a1 } .grid { stroke: #2c333b }
.axis { stroke: #9198a1 }
.c0 { stroke: #6cb2ff; fill: #6cb2ff } .c1 { stroke: #ff9f5a; fill: #ff9f5a }
.c2 { stroke: #5fd38a; fill: #5fd38a } .c3 { stroke: #c99bff; fill: #c99bff }
}
";

/// All of them in one picture, two side by side.
pub(super) fn sheet(curves: &[Curve]) -> String {
    let columns = curves.len().clamp(1, 2);
    let rows = curves.len().div_ceil(columns);
    let mut charts = String::new();
    for (place, curve) in curves.iter().enumerate() {
        let x = (place % columns) as f64 * WIDTH;
        let y = (place / columns) as f64 * HEIGHT;
        let chart = Chart::new(curve).draw();
        let _ = writeln!(charts, "<g transform=\"translate({x} {y})\">\n{chart}</g>");
    }
    picture(WIDTH * columns as f64, HEIGHT * rows as f64, &charts)
}

fn picture(width: f64, height: f64, charts: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n{charts}</svg>\n"
    )
}

/// A curve and where its points lie.
struct Chart<'a> {
    curve: &'a Curve,
    across: Axis,
    up: Axis,
}

/// Whole powers of ten, laid out on a stretch of the picture.
struct Axis {
    decades: RangeInclusive<i32>,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        let decades = if least <= most {
            let low = least.log10().floor() as i32;
            low..=(most.log10().ceil() as i32).max(low + 1)
        } else {
            0..=1
        };
        Axis { decades, from, to }
    }

    /// What is not above zero has no place on such an axis; it lies at the start.
    fn place(&self, value: f64) -> f64 {
        let (low, high) = (
            f64::from(*self.decades.start()),
            f64::from(*self.decades.end()),
        );
        let share = if value > 0.0 {
            ((value.log10() - low) / (high - low)).clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        self.decades.clone().map(|decade| {
            let value = 10f64.powi(decade);
            (self.place(value), tick(decade))
        })
    }
}

/// A power of ten as people write it.
fn tick(decade: i32) -> String {
    match decade {
        ..0 => format!("{}", 10f64.powi(decade)),
        0..3 => 10i64.pow(decade.unsigned_abs()).to_string(),
        3..6 => format!("{}k", 10i64.pow(decade.unsigned_abs() - 3)),
        6..9 => format!("{}M", 10i64.pow(decade.unsigned_abs() - 6)),
        9.. => format!("1e{decade}"),
    }
}

impl<'a> Chart<'a> {
    fn new(curve: &'a Curve) -> Chart<'a> {
        let points = || curve.series.iter().flat_map(|series| &series.points);
        let across = points().map(|point| point.at as f64);
        let up = points().flat_map(|point| [point.figures.min(), point.figures.max()]);
        Chart {
            across: Axis::over(across, LEFT, RIGHT),
            up: Axis::over(up, BOTTOM, TOP),
            curve,
        }
    }

    fn draw(&self) -> String {
        let mut drawn = String::new();
        let title = escape(&format!("{}, {}", self.curve.what, self.curve.unit.word()));
        let _ = writeln!(
            drawn,
            "<text class=\"ink title\" x=\"{LEFT}\" y=\"26\">{title}</text>"
        );
        self.axes(&mut drawn);
        for (number, series) in self.curve.series.iter().enumerate() {
            self.series(&mut drawn, number % STYLES, series);
            self.legend(&mut drawn, number, series);
        }
        drawn
    }

    fn axes(&self, drawn: &mut String) {
        for (x, label) in self.across.ticks() {
            let _ = writeln!(
                drawn,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                BOTTOM + 18.0
            );
        }
        for (y, label) in self.up.ticks() {
            let _ = writeln!(
                drawn,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let _ = writeln!(
            drawn,
            "<path class=\"axis\" d=\"M{LEFT} {TOP} V{BOTTOM} H{RIGHT}\"/>\
             <text class=\"ink\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, RIGHT),
            BOTTOM + 38.0,
            escape(self.curve.along)
        );
    }

    fn series(&self, drawn: &mut String, style: usize, series: &Series) {
        let place = |point: &Point| {
            let x = self.across.place(point.at as f64);
            (x, self.up.place(point.figures.median()))
        };
        let line: Vec<String> = series
            .points
            .iter()
            .map(place)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            drawn,
            "<polyline class=\"line c{style}\" points=\"{}\"/>",
            line.join(" ")
        );
        for point in &series.points {
            let (x, y) = place(point);
            let (low, high) = (
                self.up.place(point.figures.min()),
                self.up.place(point.figures.max()),
            );
            let told = escape(&format!(
                "{} at {}: {}",
                series.name,
                point.at,
                point.figures.shown(self.curve.unit)
            ));
            let _ = writeln!(
                drawn,
                "<line class=\"spread c{style}\" x1=\"{x:.1}\" y1=\"{low:.1}\" x2=\"{x:.1}\" y2=\"{high:.1}\"/>\
                 <circle class=\"c{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{told}</title></circle>"
            );
        }
    }

    fn legend(&self, drawn: &mut String, number: usize, series: &Series) {
        let x = LEFT + (number % 2) as f64 * f64::midpoint(RIGHT, -LEFT);
        let y = BOTTOM + 62.0 + (number / 2) as f64 * 20.0;
        let _ = writeln!(
            drawn,
            "<line class=\"line c{}\" x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\
             <text class=\"ink\" x=\"{}\" y=\"{}\">{}</text>",
            number % STYLES,
            x + 28.0,
            x + 36.0,
            y + 4.0,
            escape(&series.name)
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::super::figures::Unit;
    use super::*;

    fn curve(name: &'static str) -> Curve {
        let mut ours = Series::new("ours & <theirs>");
        let mut bare = Series::new("bare \"1\"");
        for at in [1, 30, 1000] {
            ours.add(at, [at as f64 * 2.0, at as f64 * 3.0, at as f64 * 4.0]);
            bare.add(at, [0.5]);
        }
        Curve {
            name,
            along: "bytes < more",
            what: "cost & more",
            unit: Unit::Micros,
            series: vec![ours, bare],
        }
    }

    fn all<'a>(document: &'a Document<'_>, name: &'a str) -> Vec<Node<'a, 'a>> {
        document
            .descendants()
            .filter(|node| node.has_tag_name(name))
            .collect()
    }

    fn number(node: &Node<'_, '_>, name: &str) -> f64 {
        node.attribute(name).unwrap().parse().unwrap()
    }

    #[test]
    fn a_plot_is_well_formed_and_has_every_point_of_every_series() {
        let drawn = sheet(&[curve("one"), curve("two"), curve("three")]);
        let document = Document::parse(&drawn).unwrap();
        let lines = all(&document, "polyline");
        assert_eq!(lines.len(), 3 * 2);
        for line in lines {
            assert_eq!(line.attribute("points").unwrap().split(' ').count(), 3);
        }
        let titles: Vec<_> = all(&document, "title")
            .iter()
            .map(|title| title.text().unwrap().to_owned())
            .collect();
        assert_eq!(titles.len(), 3 * 2 * 3);
        assert_eq!(titles[0], "ours & <theirs> at 1: 3.00 us (2.00..4.00)");
        let texts: Vec<_> = all(&document, "text")
            .iter()
            .map(|text| text.text().unwrap().to_owned())
            .collect();
        for text in [
            "ours & <theirs>",
            "bare \"1\"",
            "bytes < more",
            "cost & more, us",
        ] {
            assert_eq!(texts.iter().filter(|it| *it == text).count(), 3, "{text}");
        }
    }

    #[test]
    fn points_lie_where_their_logarithms_are() {
        let drawn = sheet(&[curve("one")]);
        let document = Document::parse(&drawn).unwrap();
        let circles = all(&document, "circle");
        // Three decades across: 1, 30, 1000.
        let across: Vec<_> = circles.iter().map(|it| number(it, "cx")).collect();
        let middle = LEFT + (RIGHT - LEFT) * 30f64.log10() / 3.0;
        for (x, expected) in across.iter().zip([LEFT, middle, RIGHT]) {
            assert!((x - expected).abs() < 0.1, "{x} is not {expected}");
        }
        // Five decades up, from 0.1 to 10,000: medians of 3, 90, 3000 and 0.5 thrice.
        let up: Vec<_> = circles.iter().map(|it| number(it, "cy")).collect();
        for (y, value) in up.iter().zip([3.0, 90.0, 3000.0, 0.5, 0.5, 0.5f64]) {
            let expected = BOTTOM - (BOTTOM - TOP) * (value.log10() + 1.0) / 5.0;
            assert!((y - expected).abs() < 0.1, "{y} is not {expected}");
        }
    }

    #[test]
    fn ticks_are_written_as_people_do() {
        let ticks: Vec<_> = (-2..=7).map(tick).collect();
        let expected = [
            "0.01", "0.1", "1", "10", "100", "1k", "10k", "100k", "1M", "10M",
        ];
        assert_eq!(ticks, expected);
    }
}
