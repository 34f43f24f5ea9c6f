//! [`Readiness`]: whether a worker takes tasks from every one of its queues, as a file that is there for
//! just as long, and as lines in the log for as long as it does not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::watch;

use super::{Exit, Stopped};
use crate::broker::Notice;
use crate::event::{Event, Observer};
use crate::name::QueueName;
use crate::units::show_duration;

/// How often a worker says again what keeps it from its work.
const REMIND: Duration = Duration::from_secs(60);

/// Listens to what the broker says.
pub(super) struct Readiness(watch::Sender<Board>);

/// Keeps the file, and reminds. The file goes when this is dropped.
pub(super) struct Keeper {
    board: watch::Receiver<Board>,
    file: Option<PathBuf>,
    is_there: bool,
}

/// What keeps a worker from its work.
#[derive(Debug)]
struct Board {
    queues: BTreeMap<QueueName, State>,
    /// The broker holds publishing back.
    blocked: Option<Trouble>,
    is_draining: bool,
}

#[derive(Debug)]
enum State {
    Taking,
    NotTaking(Trouble),
}

#[derive(Debug)]
struct Trouble {
    why: String,
    since: Instant,
    /// When it was last said.
    told: Instant,
}

impl Readiness {
    /// For a worker on these queues, and with this file if there is to be one. One that an earlier worker
    /// left behind is removed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn new(
        queues: &[QueueName],
        file: Option<PathBuf>,
    ) -> Result<(Readiness, Keeper), Stopped> {
        if let Some(path) = &file {
            std::fs::write(path, "")
                .and_then(|()| std::fs::remove_file(path))
                .map_err(|error| {
                    let path = path.display();
                    let reason = anyhow!(
                        "cannot write the ready file {path}: {error}; correct --ready-file"
                    );
                    Stopped::new(Exit::BadConfig, reason)
                })?;
        }
        let (sender, board) = watch::channel(Board::new(queues, Instant::now()));
        let keeper = Keeper {
            board,
            file,
            is_there: false,
        };
        Ok((Readiness(sender), keeper))
    }
}

impl Observer for Readiness {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Broker(notice) => self
                .0
                .send_modify(|board| board.hear(notice, Instant::now())),
            Event::Draining { .. } => self.0.send_modify(|board| board.is_draining = true),
            // Of tasks and plugins, not of the way to them.
            Event::Plugin(_)
            | Event::Started { .. }
            | Event::Progress { .. }
            | Event::Line { .. }
            | Event::Finished { .. }
            | Event::Settled { .. }
            | Event::NotSettled { .. }
            | Event::Repeated { .. }
            | Event::Prefetch { .. } => {}
        }
    }
}

impl Keeper {
    /// Works until it is dropped.
    pub(super) async fn keep(mut self) -> Infallible {
        let mut reminders = tokio::time::interval(REMIND);
        loop {
            let is_ready = self.board.borrow_and_update().is_ready();
            self.show(is_ready);
            tokio::select! {
                changed = self.board.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
                _ = reminders.tick() => {
                    for line in self.board.borrow().reminders(Instant::now()) {
                        tracing::warn!("{line}");
                    }
                }
            }
        }
    }

    fn show(&mut self, is_ready: bool) {
        let Some(path) = &self.file else { return };
        if is_ready == self.is_there {
            return;
        }
        let shown = if is_ready {
            std::fs::write(path, format!("{}\n", std::process::id()))
        } else {
            std::fs::remove_file(path)
        };
        match shown {
            Ok(()) => self.is_there = is_ready,
            Err(error) => tracing::warn!("cannot keep the ready file {}: {error}", path.display()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.show(false);
    }
}

impl Board {
    fn new(queues: &[QueueName], now: Instant) -> Self {
        let starting = |queue: &QueueName| {
            let trouble = Trouble::new("the worker is starting", now);
            (queue.clone(), State::NotTaking(trouble))
        };
        Board {
            queues: queues.iter().map(starting).collect(),
            blocked: None,
            is_draining: false,
        }
    }

    fn is_ready(&self) -> bool {
        let takes = |state: &State| matches!(state, State::Taking);
        !self.is_draining && self.queues.values().all(takes)
    }

    fn hear(&mut self, notice: &Notice, now: Instant) {
        match notice {
            Notice::Connected(queue) => {
                self.queues.insert(queue.clone(), State::Taking);
            }
            Notice::Paused(queue) => {
                let why = "it is paused until scutwork queue resume";
                self.stopped(queue, Trouble::new(why, now));
            }
            Notice::Disconnected(queue, why) => self.stopped(queue, Trouble::new(why, now)),
            Notice::Blocked(why) => self.blocked = Some(Trouble::new(why, now)),
            Notice::Unblocked => self.blocked = None,
            Notice::Warning(_) => {}
        }
    }

    fn stopped(&mut self, queue: &QueueName, mut trouble: Trouble) {
        if let Some(State::NotTaking(before)) = self.queues.get(queue) {
            trouble.since = before.since;
        }
        self.queues.insert(queue.clone(), State::NotTaking(trouble));
    }

    /// What has not been said for a while, and still is so.
    fn reminders(&self, now: Instant) -> Vec<String> {
        if self.is_draining {
            return Vec::new();
        }
        let queues = self.queues.iter().filter_map(|(queue, state)| match state {
            State::NotTaking(trouble) => trouble
                .again(now)
                .map(|said| format!("still not taking tasks from queue {queue} {said}")),
            State::Taking => None,
        });
        let blocked = self.blocked.as_ref().and_then(|trouble| trouble.again(now));
        let blocked = blocked.map(|said| format!("the broker still holds publishing back {said}"));
        queues.chain(blocked).collect()
    }
}

impl Trouble {
    fn new(why: &str, now: Instant) -> Self {
        Trouble {
            why: why.to_owned(),
            since: now,
            told: now,
        }
    }

    fn again(&self, now: Instant) -> Option<String> {
        let silent = now.saturating_duration_since(self.told);
        let lasted = Duration::from_secs(now.saturating_duration_since(self.since).as_secs());
        (silent >= REMIND).then(|| format!("after {}: {}", show_duration(lasted), self.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> (Board, Instant, [QueueName; 2]) {
        let queues = ["a", "b"].map(|name| name.parse().unwrap());
        let now = Instant::now();
        (Board::new(&queues, now), now, queues)
    }

    #[test]
    fn a_worker_is_ready_while_it_takes_from_every_queue_and_does_not_stop() {
        let (mut board, now, [a, b]) = board();
        let mut after = |notice: Notice| {
            board.hear(&notice, now);
            board.is_ready()
        };
        assert!(!after(Notice::Connected(a.clone())));
        assert!(after(Notice::Connected(b.clone())));
        assert!(!after(Notice::Disconnected(a.clone(), "cut".into())));
        assert!(after(Notice::Connected(a)));
        assert!(!after(Notice::Paused(b.clone())));
        assert!(after(Notice::Connected(b)));
        assert!(after(Notice::Blocked("low on memory".into())));
        board.is_draining = true;
        assert!(!board.is_ready());
    }

    #[test]
    fn what_goes_on_is_said_again_once_nothing_was_said_of_it_for_a_minute() {
        let (mut board, start, [a, b]) = board();
        let at = |seconds| start + Duration::from_secs(seconds);
        board.hear(&Notice::Connected(a), start);
        board.hear(&Notice::Disconnected(b.clone(), "cut".into()), at(30));
        board.hear(&Notice::Blocked("low on disk".into()), at(100));
        assert!(board.reminders(at(60)).is_empty());
        let still = ["still not taking tasks from queue b after 1m 30s: cut"];
        assert_eq!(board.reminders(at(90)), still);
        board.hear(&Notice::Connected(b), at(95));
        let still = ["the broker still holds publishing back after 1m: low on disk"];
        assert_eq!(board.reminders(at(160)), still);
        board.hear(&Notice::Unblocked, at(161));
        assert!(board.reminders(at(1000)).is_empty());
    }
}
