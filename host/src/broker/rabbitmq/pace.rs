//! [`Pace`]: how long to wait before the next try at something that keeps failing.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// What has held for so long was a success, however long the waits before it had become.
const SOUND: Duration = Duration::from_secs(5);

/// Waits that grow from 0.2 to 30 seconds, shortened at random by up to a half, so that workers that
/// lost the same broker do not all come back in the same moment.
pub(super) struct Pace {
    next: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { next: SHORTEST }
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(1.0 - fastrand::f64() / 2.0).max(SHORTEST)
    }

    /// The last try held for `lived`. One that ended at once does not count as a success, lest a
    /// queue that always refuses be asked without end.
    pub(super) fn lived(&mut self, lived: Duration) {
        if lived > self.next.min(SOUND) {
            self.next = SHORTEST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_thirty_seconds_and_begin_anew_after_a_success() {
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..20).map(|_| pace.wait()).collect();
        assert!(waits.iter().all(|wait| (SHORTEST..=LONGEST).contains(wait)));
        assert!(waits[0] == SHORTEST && waits[19] >= LONGEST / 2);
        pace.lived(Duration::from_millis(1));
        assert!(pace.wait() >= LONGEST / 2);
        pace.lived(SOUND);
        assert!(pace.wait() >= LONGEST / 2);
        pace.lived(SOUND + Duration::from_millis(1));
        assert_eq!(pace.wait(), SHORTEST);
    }
}
