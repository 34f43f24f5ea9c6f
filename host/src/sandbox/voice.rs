//! [`Voice`]: what a guest says while it runs, bounded, and passed on to those who watch.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::cancel::Cancel;
use super::limits::{Limits, raise};
use super::secret::Secrets;
use crate::event::{Event, Level, Observers, Run};
use crate::name::PluginName;
use crate::task::Task;
use crate::units::show_size;

/// Bytes that one line may have; the rest of it is cut.
const MAX_LINE: usize = 4 << 10;
/// Progress reports that one run may make.
const MAX_PROGRESS: u32 = 10_000;
/// How much of the end of stderr is kept for a trap's message, in bytes.
const STDERR_TAIL: usize = 8 << 10;

/// A guest's own output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What one run may say in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    lines: u32,
    lines_are_highest: bool,
    bytes: u64,
    bytes_are_highest: bool,
}

impl Bounds {
    /// The bounds in a run's limits, which are under the ceiling.
    pub(super) fn of(limits: &Limits, ceiling: &Limits) -> Bounds {
        Bounds {
            lines: limits.log_lines,
            lines_are_highest: limits.log_lines >= ceiling.log_lines,
            bytes: limits.log_bytes,
            bytes_are_highest: limits.log_bytes >= ceiling.log_bytes,
        }
    }
}

/// The mouth of one run: lines, progress and streams go through it to the observers, and what is over
/// the bounds is dropped and announced once.
pub(super) struct Voice {
    task: String,
    plugin: PluginName,
    attempt: u32,
    observers: Observers,
    cancel: Cancel,
    bounds: Bounds,
    secrets: OnceLock<Secrets>,
    said: Mutex<Said>,
}

/// What a run has said so far.
#[derive(Default)]
struct Said {
    lines: u32,
    bytes: u64,
    progress: u32,
    cut: bool,
    stdout: Partial,
    stderr: Partial,
    stderr_tail: Vec<u8>,
}

/// A line that has not ended yet.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    /// More came than a line may have.
    overlong: bool,
}

/// What becomes of a line.
enum Verdict {
    Tell,
    /// It is the first of those that are dropped.
    AnnounceCut {
        too_many_lines: bool,
    },
    Drop,
}

impl Voice {
    /// Nothing said yet.
    pub(super) fn new(task: &Task, observers: Observers, cancel: Cancel, bounds: Bounds) -> Voice {
        Voice {
            task: task.id.clone(),
            plugin: task.plugin.clone(),
            attempt: task.attempt,
            observers,
            cancel,
            bounds,
            secrets: OnceLock::new(),
            said: Mutex::default(),
        }
    }

    /// Keeps what the guest says free of these. They are set once, before it says anything.
    pub(super) fn keep(&self, secrets: Secrets) {
        // A second time there is nothing that the first did not know.
        let _ = self.secrets.set(secrets);
    }

    /// A text of the guest's without what nobody may read.
    fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.secrets.get() {
            Some(secrets) => secrets.hide(text),
            None => Cow::Borrowed(text),
        }
    }

    /// The plugin that speaks.
    pub(super) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// Whether the worker wants the run to end early.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Passes on a line, cut where it is too long.
    pub(super) fn line(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let message: &str = &self.clean(message);
        let mut size = message.len();
        let mut kept = 0;
        for (name, value) in fields {
            size = size.saturating_add(name.len()).saturating_add(value.len());
            if size > MAX_LINE {
                break;
            }
            kept += 1;
        }
        let fields = &fields[..kept];
        if message.len() <= MAX_LINE {
            self.tell_line(level, message, fields, size.min(MAX_LINE));
        } else {
            let shown = format!("{}…", cut(message, MAX_LINE));
            self.tell_line(level, &shown, fields, MAX_LINE);
        }
    }

    /// Passes on how far the task is.
    pub(super) fn progress(&self, done: u32, total: u32, message: &str) {
        {
            let mut said = self.said();
            if said.progress == MAX_PROGRESS {
                return;
            }
            said.progress += 1;
        }
        self.observers.tell(&Event::Progress {
            run: self.run(),
            done,
            total,
            message: cut(&self.clean(message), MAX_LINE),
        });
    }

    /// Takes what the guest wrote to a stream, and passes on the lines that it completes.
    pub(super) fn write(&self, stream: Stream, mut bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.said().keep_tail(bytes);
        }
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = {
                let mut said = self.said();
                let partial = said.partial(stream);
                partial.push(&bytes[..end]);
                partial.take()
            };
            self.stream_line(stream, &line);
            bytes = &bytes[end + 1..];
        }
        if !bytes.is_empty() {
            self.said().partial(stream).push(bytes);
        }
    }

    /// Passes on what the streams still hold, when the guest is gone. Returns the end of stderr.
    pub(super) fn finish(&self) -> String {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = {
                let mut said = self.said();
                let partial = said.partial(stream);
                if partial.bytes.is_empty() {
                    continue;
                }
                partial.take()
            };
            self.stream_line(stream, &rest);
        }
        let tail = std::mem::take(&mut self.said().stderr_tail);
        if tail.is_empty() {
            return String::new();
        }
        // Hidden before it is cut: what is left of a secret at the edge would not be found.
        let tail = String::from_utf8_lossy(&tail);
        let tail = self.clean(&tail);
        let start = tail.ceil_char_boundary(tail.len().saturating_sub(STDERR_TAIL));
        tail[start..].trim().to_owned()
    }

    fn stream_line(&self, stream: Stream, line: &str) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let level = match stream {
            Stream::Stdout => Level::Info,
            Stream::Stderr => Level::Warn,
        };
        self.tell_line(level, &self.clean(line), &[], line.len());
    }

    fn tell_line(&self, level: Level, message: &str, fields: &[(String, String)], size: usize) {
        // The lock is not held while observers look.
        let verdict = self.said().admit(size as u64, &self.bounds);
        match verdict {
            Verdict::Tell => self.observers.tell(&Event::Line {
                run: self.run(),
                level,
                message,
                fields: &self.clean_fields(fields),
            }),
            Verdict::AnnounceCut { too_many_lines } => self.observers.tell(&Event::Line {
                run: self.run(),
                level: Level::Warn,
                message: &self.cut_off(too_many_lines),
                fields: &[],
            }),
            Verdict::Drop => {}
        }
    }

    fn clean_fields<'a>(&self, fields: &'a [(String, String)]) -> Cow<'a, [(String, String)]> {
        if fields.is_empty() || self.secrets.get().is_none() {
            return Cow::Borrowed(fields);
        }
        let clean = |(name, value): &(String, String)| {
            (
                self.clean(name).into_owned(),
                self.clean(value).into_owned(),
            )
        };
        Cow::Owned(fields.iter().map(clean).collect())
    }

    fn cut_off(&self, too_many_lines: bool) -> String {
        let bounds = &self.bounds;
        let (limit, setting, is_highest) = if too_many_lines {
            let lines = format!("{} lines", bounds.lines);
            (lines, "log_lines", bounds.lines_are_highest)
        } else {
            (
                show_size(bounds.bytes),
                "log_bytes",
                bounds.bytes_are_highest,
            )
        };
        let remedy = raise(setting, is_highest, self.plugin.as_str());
        format!("log limit {limit} reached, the rest is dropped; {remedy}")
    }

    fn run(&self) -> Run<'_> {
        Run {
            task: &self.task,
            plugin: self.plugin.as_str(),
            attempt: self.attempt,
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing here can be half done: counters and buffers are right after every step.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn admit(&mut self, size: u64, bounds: &Bounds) -> Verdict {
        if self.cut {
            return Verdict::Drop;
        }
        let too_many_lines = self.lines == bounds.lines;
        if too_many_lines || self.bytes.saturating_add(size) > bounds.bytes {
            self.cut = true;
            return Verdict::AnnounceCut { too_many_lines };
        }
        self.lines += 1;
        self.bytes += size;
        Verdict::Tell
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(STDERR_TAIL)..];
        // Twice the tail is kept before the older half goes, so that a byte is moved once at most.
        if self.stderr_tail.len() + new.len() > 2 * STDERR_TAIL {
            let keep = STDERR_TAIL.min(self.stderr_tail.len());
            self.stderr_tail.drain(..self.stderr_tail.len() - keep);
        }
        self.stderr_tail.extend_from_slice(new);
    }
}

impl Partial {
    fn push(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.bytes.len();
        self.overlong |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take(&mut self) -> String {
        let mut line = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.overlong {
            line.push('…');
        }
        self.bytes.clear();
        self.overlong = false;
        line
    }
}

/// The start of a text, at most so many bytes of it.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Observer;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Observer for Heard {
        fn observe(&self, event: &Event<'_>) {
            if let Event::Line { message, .. } = event {
                self.0.lock().unwrap().push((*message).to_owned());
            }
        }
    }

    fn voice() -> (Voice, Heard) {
        let heard = Heard::default();
        let task = Task {
            id: "1".into(),
            plugin: "talker".parse().unwrap(),
            payload: bytes::Bytes::new(),
            content_type: None,
            headers: Vec::new(),
            attempt: 1,
        };
        let observers = Observers::new(vec![Box::new(heard.clone())]);
        let bounds = Bounds::of(&Limits::default(), &Limits::CEILING);
        (Voice::new(&task, observers, Cancel::new(), bounds), heard)
    }

    #[test]
    fn a_line_is_passed_on_once_it_is_whole_and_the_last_one_at_the_end() {
        let (voice, heard) = voice();
        voice.write(Stream::Stdout, b"on");
        voice.write(Stream::Stderr, b"oops");
        voice.write(Stream::Stdout, b"e\ntwo\r\n\nrest");
        assert_eq!(*heard.0.lock().unwrap(), ["one", "two", ""]);
        assert_eq!(voice.finish(), "oops");
        assert_eq!(heard.0.lock().unwrap()[3..], ["rest", "oops"]);
    }

    #[test]
    fn what_is_too_much_is_dropped_and_said_so_once() {
        let (voice, heard) = voice();
        let most = Limits::default().log_lines as usize;
        for _ in 0..10 * most {
            voice.write(Stream::Stdout, b"again\n");
            voice.line(Level::Info, "and again", &[]);
        }
        let heard = heard.0.lock().unwrap();
        assert_eq!(heard.len(), most + 1);
        assert_eq!(
            heard[most],
            "log limit 1000 lines reached, the rest is dropped; raise limits.log_lines in talker.toml"
        );
    }

    #[test]
    fn a_line_without_an_end_holds_no_more_than_a_line() {
        let (voice, heard) = voice();
        for _ in 0..1_000 {
            voice.write(Stream::Stderr, &[b'x'; 4_096]);
        }
        assert!(voice.said().stderr_tail.len() <= 2 * STDERR_TAIL);
        assert_eq!(voice.finish().len(), STDERR_TAIL);
        assert_eq!(heard.0.lock().unwrap()[0].len(), MAX_LINE + '…'.len_utf8());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
        assert_eq!(cut("a", 100), "a");
    }
}
