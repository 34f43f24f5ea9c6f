//! [`Books`]: which tasks are owed an end, and which ends were heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use scutwork::settlement::ReplyKind;
use tokio::sync::watch;

use super::Fate;

/// How long nothing at all may end before the books are closed.
const PATIENCE: Duration = Duration::from_secs(90);

/// A task's ends as its requester heard of them. At least once: there may be several.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    done: u32,
    dead: u32,
}

/// The books. Many write in them at once.
#[derive(Clone, Default)]
pub(super) struct Books {
    pages: std::sync::Arc<Mutex<Pages>>,
    ended: watch::Sender<usize>,
}

#[derive(Default)]
struct Pages {
    owed: BTreeMap<String, Fate>,
    ends: BTreeMap<String, Ends>,
}

impl Books {
    pub(super) fn owe(&self, tasks: Vec<(String, Fate)>) {
        self.pages.lock().unwrap().owed.extend(tasks);
    }

    /// How many tasks were confirmed.
    pub(super) fn owed(&self) -> usize {
        self.pages.lock().unwrap().owed.len()
    }

    pub(super) fn hear(&self, task: String, kind: ReplyKind) {
        let mut pages = self.pages.lock().unwrap();
        let ends = pages.ends.entry(task).or_default();
        match kind {
            ReplyKind::Done => ends.done += 1,
            ReplyKind::Dead => ends.dead += 1,
            other => panic!("nobody asked to hear of {other:?}"),
        }
        self.ended.send_replace(pages.ends.len());
    }

    /// How many tasks ended.
    pub(super) fn ended(&self) -> usize {
        *self.ended.borrow()
    }

    /// Waits until more tasks than that ended. False: for long none did.
    pub(super) async fn more_than(&self, count: usize) -> bool {
        let mut ended = self.ended.subscribe();
        let more = ended.wait_for(|ended| *ended > count);
        tokio::time::timeout(PATIENCE, more).await.is_ok()
    }

    /// Waits until nothing was heard for so long.
    pub(super) async fn silence(&self, time: Duration) {
        let mut ended = self.ended.subscribe();
        while let Ok(heard) = tokio::time::timeout(time, ended.changed()).await {
            heard.expect("these books hold the sender");
        }
    }

    /// The tasks that are owed an end.
    pub(super) fn missing(&self) -> Vec<String> {
        let pages = self.pages.lock().unwrap();
        let missing = pages
            .owed
            .keys()
            .filter(|task| !pages.ends.contains_key(*task));
        missing.cloned().collect()
    }

    /// Holds every task against the dead letters: each as its id and reason. Gives the sum in words.
    pub(super) fn check(&self, letters: &[(String, String)]) -> String {
        let pages = self.pages.lock().unwrap();
        let causes: BTreeMap<&str, &str> = letters
            .iter()
            .map(|(task, reason)| (task.as_str(), reason.as_str()))
            .collect();
        let mut crashed = BTreeSet::new();
        let (mut done, mut dead, mut told_twice) = (0, 0, 0);
        for (task, fate) in &pages.owed {
            let ends = pages.ends[task];
            let cause = causes.get(task.as_str()).copied();
            match (fate, cause) {
                // Its worker died with it once too often, which is told to whoever looks.
                (_, Some("crashed")) => {
                    crashed.insert(task);
                    dead += 1;
                }
                (Fate::Done | Fate::DoneAfterRetry, None) => {
                    assert!(
                        ends.done > 0 && ends.dead == 0,
                        "{task} of {fate:?}: {ends:?}"
                    );
                    done += 1;
                }
                (Fate::Dead, Some("rejected")) => {
                    assert!(
                        ends.dead > 0 && ends.done == 0,
                        "{task} of {fate:?}: {ends:?}"
                    );
                    dead += 1;
                }
                (fate, cause) => panic!("{task} of {fate:?} is dead of {cause:?}: {ends:?}"),
            }
            told_twice += usize::from(ends.done + ends.dead > 1);
        }
        assert_eq!(done + dead, pages.owed.len());
        format!(
            "{done} done, {dead} dead ({} of them for their workers' deaths), none missing; {told_twice} \
             ended more than once, and {} came to be that were never confirmed",
            crashed.len(),
            pages
                .ends
                .keys()
                .filter(|task| !pages.owed.contains_key(*task))
                .count()
        )
    }
}
