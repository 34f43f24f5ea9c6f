//! [`Tally`]: how many of the submitted tasks ended, and how, shown as a bar or as plain lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::{Global, output};
use crate::units::show_duration;

/// How often a plain line says how far things are.
const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Tally {
    began: Instant,
    sent: u64,
    /// None until all are sent, where that was not known before.
    total: Option<u64>,
    done: u64,
    retried: u64,
    dead: u64,
    shown: Shown,
}

enum Shown {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere, with when the last line was written.
    Lines(Instant),
    /// One task needs no count, but what happens to it is told.
    Notes,
    /// Not at all.
    Nothing,
}

impl Tally {
    pub(super) fn new(global: &Global, total: Option<u64>) -> Self {
        let began = Instant::now();
        let shown = if global.quiet > 0 {
            Shown::Nothing
        } else if total == Some(1) {
            Shown::Notes
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar(total))
        } else {
            Shown::Lines(began)
        };
        Tally {
            began,
            sent: 0,
            total,
            done: 0,
            retried: 0,
            dead: 0,
            shown,
        }
    }

    /// How many have been sent.
    pub(super) fn total(&self) -> u64 {
        self.sent
    }

    pub(super) fn sent(&mut self, count: u64) {
        self.sent += count;
    }

    pub(super) fn all_sent(&mut self) {
        self.total = Some(self.sent);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_length(self.sent);
        }
    }

    pub(super) fn retried(&mut self) {
        self.retried += 1;
        self.refresh();
    }

    /// Counts one that is done, and shows its result; `show` is told whether there are several.
    pub(super) fn done(&mut self, show: impl FnOnce(bool)) {
        self.done += 1;
        self.print(show);
    }

    /// Counts one that died, and shows why.
    pub(super) fn dead(&mut self, show: impl FnOnce()) {
        self.dead += 1;
        self.print(|_| show());
    }

    /// Says something beside the counts.
    pub(super) fn note(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| output::say(text)),
            Shown::Lines(_) | Shown::Notes => output::say(text),
            Shown::Nothing => {}
        }
    }

    /// Shows the last count, and gives how many died.
    pub(super) fn finish(&self) -> u64 {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.finish_and_clear();
                output::say(&self.summary());
            }
            Shown::Lines(_) => output::say(&self.summary()),
            Shown::Notes | Shown::Nothing => {}
        }
        self.dead
    }

    fn print(&mut self, show: impl FnOnce(bool)) {
        let several = self.total != Some(1);
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| show(several)),
            Shown::Lines(_) | Shown::Notes | Shown::Nothing => show(several),
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        let summary = self.summary();
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(self.done + self.dead);
                bar.set_message(summary);
            }
            Shown::Lines(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                output::say(&summary);
            }
            Shown::Lines(_) | Shown::Notes | Shown::Nothing => {}
        }
    }

    /// `done 12, retried 1, dead 0 of 20; 3.1/s, 3s left`
    fn summary(&self) -> String {
        let (ended, elapsed) = (self.done + self.dead, self.began.elapsed().as_secs_f64());
        let rate = ended as f64 / elapsed.max(f64::MIN_POSITIVE);
        let mut text = format!(
            "done {}, retried {}, dead {}",
            self.done, self.retried, self.dead
        );
        if let Some(total) = self.total {
            text.push_str(&format!(" of {total}"));
        }
        text.push_str(&format!("; {rate:.1}/s"));
        let left = self.total.map_or(0, |total| total.saturating_sub(ended));
        if left > 0 && ended > 0 {
            let seconds = (left as f64 / rate).ceil().min(1e9);
            text.push_str(&format!(
                ", {} left",
                show_duration(Duration::from_secs(seconds as u64))
            ));
        }
        text
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = match total {
        Some(_) => "{bar:30} {pos}/{len} {msg}",
        None => "{spinner} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
