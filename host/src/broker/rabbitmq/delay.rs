//! [`Stay`]: which of a task queue's delay queues a message waits in next, and until when.
//!
//! Delay queue `n` holds each message for 250 ms times 2 to the `n`, so that the first to come is the
//! first to leave, whatever each is due at: nothing waits behind what is due later. A message goes to
//! the longest hold that its wait has room for, then to the longest that what is left has room for:
//!
//! ```text
//! due in 5.2 s --> [Q.delay.4: 4 s] --1.2 s left--> [Q.delay.2: 1 s] --0.2 s left--> [Q.delay.0] --> Q
//! ```
//!
//! So any delay needs no more than [`LEVELS`] queues. [`super::scheduler`] moves what leaves one. The
//! broker could by itself, with a time to live and at-least-once dead-lettering from queue to queue; but
//! where the next queue has no leader at that moment, which is usual while a node starts, 3.10.8 and
//! 4.0.5 try again only after three minutes.

use std::time::{Duration, SystemTime};

use crate::name::QueueName;

/// How many delay queues a task queue may have: enough for the 30 days of the longest delay.
pub(super) const LEVELS: u32 = 24;

/// What the lowest level holds a message for, at most twice this long.
const UNIT: Duration = Duration::from_millis(250);

/// A message's time in one delay queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// Which delay queue.
    pub(super) level: u32,
    /// When it leaves it.
    pub(super) leaves: SystemTime,
    /// When it goes to the task queue.
    pub(super) due: SystemTime,
}

impl Stay {
    /// Where a message waits first that is due after `wait`. None: it does not wait.
    pub(super) fn after(wait: Duration) -> Option<Stay> {
        let now = SystemTime::now();
        Stay::until(now + wait.min(hold(LEVELS)), now)
    }

    /// Where a message waits next that is due then. None: it waits no more.
    pub(super) fn until(due: SystemTime, now: SystemTime) -> Option<Stay> {
        let left = due
            .duration_since(now)
            .ok()
            .filter(|left| !left.is_zero())?;
        let units = left.as_millis() / UNIT.as_millis();
        let level = units.checked_ilog2().unwrap_or_default().min(LEVELS - 1);
        Some(Stay {
            level,
            // From the lowest there is no further way than to the task queue.
            leaves: if level == 0 { due } else { now + hold(level) },
            due,
        })
    }
}

/// How long a level holds what has room for it.
fn hold(level: u32) -> Duration {
    UNIT * 2_u32.pow(level)
}

/// The name of a level's queue.
pub(super) fn level_name(queue: &QueueName, level: u32) -> String {
    format!("{queue}.delay.{level}")
}

/// The queue whose owner moves what leaves the others. It hears by it that there are more of them.
pub(super) fn lock_name(queue: &QueueName) -> String {
    format!("{queue}.delay.lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::MAX_DELAY;

    #[test]
    fn every_delay_goes_down_the_levels_and_ends_when_it_is_due() {
        let began = SystemTime::now();
        let mut wait = Duration::from_millis(1);
        while wait <= MAX_DELAY {
            let due = began + wait;
            let (mut now, mut level) = (began, LEVELS);
            while let Some(stay) = Stay::until(due, now) {
                assert!(stay.level < level, "{wait:?} stays in level {level}");
                assert!(stay.leaves > now && stay.leaves <= due && stay.due == due);
                (now, level) = (stay.leaves, stay.level);
            }
            assert_eq!(now, due);
            wait = wait.mul_f64(1.003) + Duration::from_millis(1);
        }
    }

    #[test]
    fn whatever_enters_a_level_later_leaves_it_later() {
        let now = SystemTime::now();
        for level in 1..LEVELS {
            let longest =
                Stay::until(now + hold(level + 1) - Duration::from_millis(1), now).unwrap();
            let later = now + Duration::from_millis(1);
            let shortest = Stay::until(later + hold(level), later).unwrap();
            assert_eq!((longest.level, shortest.level), (level, level));
            assert!(longest.leaves < shortest.leaves);
        }
    }

    #[test]
    fn a_delay_of_nothing_is_due_and_one_of_too_much_stays_in_the_highest() {
        let now = SystemTime::now();
        assert_eq!(Stay::until(now, now), None);
        assert_eq!(Stay::until(now - UNIT, now), None);
        let far = Stay::until(now + MAX_DELAY * 10, now).unwrap();
        assert_eq!(far.level, LEVELS - 1);
    }
}
