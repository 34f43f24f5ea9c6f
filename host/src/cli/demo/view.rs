//! [`View`]: the demo as people see it, live on a terminal and line by line elsewhere.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::cast::Part;
use super::{Global, Seen, is_json, output, word};
use crate::cli::log::has_colours;
use crate::outcome::Usage;
use crate::units::show_duration;

/// How wide the columns of plugins and payloads are.
const PLUGIN: usize = 10;
const PAYLOAD: usize = 24;

pub(super) struct View {
    began: Instant,
    mode: Mode,
    colours: bool,
    labels: RefCell<HashMap<String, (&'static str, &'static str)>>,
    running: RefCell<HashMap<String, ProgressBar>>,
}

enum Mode {
    /// On a terminal: finished lines above, running tasks below.
    Live(MultiProgress),
    Plain,
    Json,
}

impl View {
    pub(super) fn new(global: &Global, began: Instant) -> Self {
        let mode = if is_json(global) {
            Mode::Json
        } else if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
            Mode::Live(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Mode::Plain
        };
        View {
            began,
            mode,
            colours: has_colours(global),
            labels: RefCell::default(),
            running: RefCell::default(),
        }
    }

    /// A line about the demo itself.
    pub(super) fn say(&self, text: &str) {
        self.line("", "demo", text, Word::Plain);
    }

    pub(super) fn submitted(&self, task: &str, part: &Part) {
        self.labels
            .borrow_mut()
            .insert(task.to_owned(), (part.name(), part.payload));
        self.line(task, "submitted", "", Word::Plain);
    }

    pub(super) fn started(&self, task: &str, attempt: u32) {
        let again = if attempt > 1 {
            format!("attempt {attempt}")
        } else {
            String::new()
        };
        match &self.mode {
            Mode::Live(screen) => {
                let bar = screen.add(ProgressBar::no_length());
                if let Ok(style) = ProgressStyle::with_template("         {spinner} {prefix} {msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(self.label(task));
                bar.set_message(again);
                bar.enable_steady_tick(Duration::from_millis(100));
                self.running.borrow_mut().insert(task.to_owned(), bar);
            }
            Mode::Plain | Mode::Json => self.line(task, "started", &again, Word::Plain),
        }
    }

    pub(super) fn progress(&self, task: &str, done: u32, total: u32) {
        if let Some(bar) = self.running.borrow().get(task) {
            let left = total.saturating_sub(done);
            bar.set_message("●".repeat(done as usize) + &"○".repeat(left as usize));
        }
    }

    pub(super) fn settled(&self, task: &str, seen: &Seen, usage: Usage) {
        if let Some(bar) = self.running.borrow_mut().remove(task) {
            bar.finish_and_clear();
        }
        let (text, tone) = match seen {
            Seen::Done(output) => (output.clone(), Word::Good),
            Seen::Retry(why, after) => (
                format!("{why}; again in {}", show_duration(*after)),
                Word::Odd,
            ),
            Seen::Parked(after) => (
                format!(
                    "no such plugin yet; looks again in {}",
                    show_duration(*after)
                ),
                Word::Odd,
            ),
            Seen::Released => (String::new(), Word::Odd),
            Seen::Dead { reason, error } => (format!("{reason}: {error}"), Word::Bad),
        };
        let cost = match usage.wall {
            Duration::ZERO => String::new(),
            wall => format!(" ({}, cpu {})", briefly(wall), briefly(usage.cpu)),
        };
        // A trap's text goes on with a backtrace; its first line says what happened.
        let first = text.lines().next().unwrap_or_default();
        self.line(
            task,
            word(seen),
            &format!("{}{cost}", output::one_line(first, 160)),
            tone,
        );
    }

    pub(super) fn serves(&self, plugin: &str, compiled_in: Duration) {
        self.say(&format!(
            "{plugin}.wasm serves, compiled in {} ms",
            compiled_in.as_millis()
        ));
    }

    /// The last line.
    pub(super) fn end(&self, text: &str) {
        self.line("", "summary", text, Word::Plain);
    }

    fn label(&self, task: &str) -> String {
        match self.labels.borrow().get(task) {
            Some((plugin, payload)) => {
                let plugin = output::one_line(plugin, PLUGIN - 1);
                let payload = output::one_line(payload, PAYLOAD - 1);
                format!("{plugin:PLUGIN$} {payload:PAYLOAD$}")
            }
            None => String::new(),
        }
    }

    fn line(&self, task: &str, word: &str, text: &str, tone: Word) {
        let at = self.began.elapsed().as_secs_f64();
        if let Mode::Json = self.mode {
            let label = self.labels.borrow().get(task).copied();
            output::json(&json!({
                "at": at, "event": word, "task": task, "text": text,
                "plugin": label.map(|(plugin, _)| plugin), "payload": label.map(|(_, payload)| payload),
            }));
            return;
        }
        let word = if self.colours {
            tone.paint(word)
        } else {
            format!("{word:9}")
        };
        let line = format!("{at:6.2} s  {word}  {}  {text}", self.label(task));
        match &self.mode {
            Mode::Live(screen) => screen.suspend(|| output::line(line.trim_end())),
            Mode::Plain | Mode::Json => output::line(line.trim_end()),
        }
    }
}

/// `3.0 s`, `41 ms`
fn briefly(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.95 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// How a line's word is coloured.
#[derive(Clone, Copy)]
enum Word {
    Plain,
    Good,
    Odd,
    Bad,
}

impl Word {
    fn paint(self, word: &str) -> String {
        let colour = match self {
            Word::Plain => return format!("{word:9}"),
            Word::Good => 32,
            Word::Odd => 33,
            Word::Bad => 31,
        };
        format!("\x1b[{colour}m{word:9}\x1b[0m")
    }
}
