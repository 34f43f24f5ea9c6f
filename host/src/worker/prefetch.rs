//! [`Prefetch`]: how many deliveries a worker asks for, and the policy that decides it where the operator
//! does not. It knows figures alone: neither what is delivered nor by whom.

use std::time::Duration;

/// How many deliveries of one queue may be unsettled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// So many, whatever happens.
    Fixed(u16),
    /// As many as there are slots, and more ahead while tasks are short: up to [`MOST`] and [`BYTES`].
    Automatic,
}

impl Prefetch {
    /// What a worker with so many slots begins with.
    pub fn at_first(self, slots: usize) -> u16 {
        match self {
            Prefetch::Fixed(prefetch) => prefetch,
            Prefetch::Automatic => u16::try_from(slots).unwrap_or(u16::MAX),
        }
    }

    /// The most that it comes to with so many slots.
    pub fn at_most(self, slots: usize) -> u16 {
        self.at_first(slots).max(match self {
            Prefetch::Fixed(prefetch) => prefetch,
            Prefetch::Automatic => MOST,
        })
    }
}

/// The most that is asked for by itself, if there are not more slots. Beyond that nothing is gained: with an
/// answer of the broker's in 2.5 ms, which a quorum queue takes for an ack, it is 400,000 tasks a second.
pub const MOST: u16 = 1024;

/// How many bytes of payload the queues of a worker together may hold, by the sizes seen lately, for more to be
/// asked for than there are slots. Where all at once large ones come after small ones, it is more until they have
/// been seen.
pub const BYTES: u64 = 32 << 20;

/// By how much it grows in one step. Each tells whether the next would do any good.
const STEP: u16 = 4;

/// How often the figures are looked at.
pub(super) const EVERY: Duration = Duration::from_millis(50);

/// How long a task may take, from its delivery to the end of its run, after a step. Where slots are what there
/// is too little of, it takes longer by as much as more is held; where it is the broker's answers, it does not.
const SHORT: Duration = Duration::from_millis(100);

/// What is held is to be asked for anew within this time, or there is no hurry in which more would help.
const TURN: Duration = Duration::from_millis(250);

/// What waits behind the slots is too much when this would pass until all of it has begun: others might begin
/// it at once.
const LONG: Duration = Duration::from_secs(1);

/// For how long there may be too little to do for what may be held, with nothing waiting.
const SLACK: Duration = Duration::from_secs(10);

/// How long nothing more is asked for after tasks became long. It doubles each time up to the longer, lest
/// a queue of both kinds be taken and put back all the time; and is forgotten after as long without.
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// The time in which a rate that has ended is half forgotten.
const MEMORY: Duration = Duration::from_millis(100);

/// What happened to the deliveries of one queue since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) time: Duration,
    /// How many came.
    pub(super) taken: u64,
    /// How large their payloads are together.
    pub(super) bytes: u64,
    /// One of them was there when a worker died.
    pub(super) is_crashed: bool,
    /// How many runs ended.
    pub(super) ended: u64,
    /// How long it took from their deliveries to that, all together.
    pub(super) took: Duration,
    /// How many there are now that have not come to the end of a run.
    pub(super) held: usize,
}

/// Decides how many deliveries of one queue to ask for.
#[derive(Debug)]
pub(super) struct Policy {
    least: u16,
    most: u16,
    /// What may be held in payloads.
    bytes: u64,
    prefetch: u16,
    /// Runs that end in a second, of late.
    rate: f64,
    /// Bytes of a payload, of late.
    size: f64,
    /// How long there has been too little to do.
    slack: Duration,
    /// How long it is until more may be asked for.
    rest: Duration,
    next_rest: Duration,
    /// How long it has gone well with more than the least.
    grown: Duration,
}

impl Policy {
    /// For one of so many queues of a worker with so many slots.
    pub(super) fn new(slots: usize, queues: usize) -> Self {
        let least = Prefetch::Automatic.at_first(slots);
        Policy {
            least,
            most: Prefetch::Automatic.at_most(slots),
            bytes: BYTES / u64::try_from(queues.max(1)).unwrap_or(u64::MAX),
            prefetch: least,
            rate: 0.0,
            size: 0.0,
            slack: Duration::ZERO,
            rest: Duration::ZERO,
            next_rest: REST,
            grown: Duration::ZERO,
        }
    }

    /// What was last asked for.
    pub(super) fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// Whether more is asked for than there are slots.
    pub(super) fn is_grown(&self) -> bool {
        self.prefetch > self.least
    }

    /// Looks at what happened. Some: so many are to be asked for from now on.
    pub(super) fn look(&mut self, seen: Seen) -> Option<u16> {
        self.learn(seen);
        let before = self.prefetch;
        if self.is_grown() {
            self.shrink(seen);
        } else {
            self.grown = Duration::ZERO;
        }
        if self.prefetch == before && self.rest.is_zero() {
            self.grow(seen);
        }
        (self.prefetch != before).then_some(self.prefetch)
    }

    fn learn(&mut self, seen: Seen) {
        let time = seen.time.as_secs_f64().max(f64::EPSILON);
        let weight = time / (time + MEMORY.as_secs_f64());
        self.rate += weight * (seen.ended as f64 / time - self.rate);
        if seen.taken > 0 {
            let size = seen.bytes as f64 / seen.taken as f64;
            // Large ones count at once.
            self.size = size.max((self.size + size) / 2.0);
        }
        self.rest = self.rest.saturating_sub(seen.time);
        if seen.is_crashed {
            // A crash is counted against all that are held.
            self.rest = self.rest.max(REST);
        }
    }

    fn shrink(&mut self, seen: Seen) {
        let ahead = seen.held.saturating_sub(self.least.into()) as f64;
        let in_time = self.rate * LONG.as_secs_f64();
        if ahead > in_time || f64::from(self.prefetch) * self.size > 2.0 * self.bytes as f64 {
            self.prefetch = self.least;
            self.rest = self.next_rest;
            self.next_rest = LONGEST_REST.min(2 * self.next_rest);
            return;
        }
        self.grown += seen.time;
        if self.grown > self.next_rest {
            self.next_rest = REST;
        }
        if f64::from(self.prefetch) <= in_time {
            self.slack = Duration::ZERO;
            return;
        }
        self.slack += seen.time;
        if self.slack >= SLACK {
            self.prefetch = self.least;
        }
    }

    fn grow(&mut self, seen: Seen) {
        if seen.ended == 0 || f64::from(self.prefetch) > self.rate * TURN.as_secs_f64() {
            return;
        }
        let by_size = self.bytes as f64 / self.size.max(1.0);
        let most = u64::from(self.most).min(by_size as u64);
        let wanted = most.min(u64::from(self.prefetch) * u64::from(STEP));
        let times = wanted as f64 / f64::from(self.prefetch);
        let each = seen.took.as_secs_f64() / seen.ended as f64;
        if times >= 2.0 && each * times < SHORT.as_secs_f64() {
            self.prefetch = u16::try_from(wanted).unwrap_or(self.most);
            self.slack = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker of 32 slots whose tasks take so long each, from an endless queue, for so many looks. Gives each
    /// prefetch that it asked for.
    fn work(policy: &mut Policy, each: Duration, answer: Duration, looks: usize) -> Vec<u16> {
        let mut asked = Vec::new();
        for _ in 0..looks {
            asked.extend(policy.look(busy(policy, each, answer)));
        }
        asked
    }

    /// What is seen where each run takes so long, and an ack so long to bring the next delivery.
    fn busy(policy: &Policy, each: Duration, answer: Duration) -> Seen {
        let (prefetch, least) = (f64::from(policy.prefetch), f64::from(policy.least));
        let by_slots = least / each.as_secs_f64();
        let by_answers = prefetch / (each + answer).as_secs_f64();
        let rate = by_slots.min(by_answers);
        let ended = (rate * EVERY.as_secs_f64()) as u64;
        let sojourn = (prefetch / rate - answer.as_secs_f64()).max(each.as_secs_f64());
        Seen {
            time: EVERY,
            taken: ended,
            bytes: ended * 20,
            is_crashed: false,
            ended,
            took: Duration::from_secs_f64(sojourn * ended as f64),
            held: (rate * sojourn) as usize,
        }
    }

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn grown() -> Policy {
        let mut policy = Policy::new(32, 1);
        work(&mut policy, micros(50), micros(2500), 100);
        assert_eq!(policy.prefetch(), MOST);
        policy
    }

    #[test]
    fn it_grows_as_far_as_tasks_are_short() {
        for (each, answer, asked) in [
            (micros(50), micros(2_500), vec![128, 512, 1024]),
            // Far from its broker, a worker waits for answers.
            (micros(50), micros(100_000), vec![128, 512, 1024]),
            // Some 30 ms of work ahead; a step more would be a hundred.
            (micros(10_000), micros(2_500), vec![128]),
            (micros(50_000), micros(2_500), vec![]),
            (micros(3_000_000), micros(2_500), vec![]),
        ] {
            let mut policy = Policy::new(32, 1);
            assert_eq!(work(&mut policy, each, answer, 200), asked, "{each:?}");
        }
    }

    #[test]
    fn a_worker_with_nothing_to_do_asks_for_no_more() {
        let mut policy = Policy::new(32, 1);
        for _ in 0..200 {
            let seen = Seen {
                time: Duration::from_secs(1),
                taken: 30,
                ended: 30,
                took: micros(30 * 50),
                ..Seen::default()
            };
            assert_eq!(policy.look(seen), None);
        }
    }

    #[test]
    fn it_falls_when_tasks_become_long_and_rests_longer_each_time() {
        let mut policy = grown();
        let stuck = |held| Seen {
            time: EVERY,
            held,
            ..Seen::default()
        };
        let mut rests = Vec::new();
        for _ in 0..3 {
            let looks = (0..)
                .find(|_| policy.look(stuck(1024)) == Some(32))
                .unwrap();
            assert!(EVERY * looks < LONG, "{looks} looks");
            rests.push(policy.rest);
            while !policy.rest.is_zero() {
                assert_eq!(policy.look(stuck(32)), None);
            }
            work(&mut policy, micros(50), micros(2500), 20);
            assert_eq!(policy.prefetch(), MOST);
        }
        assert_eq!(rests, [REST, 2 * REST, 4 * REST]);
        work(&mut policy, micros(50), micros(2500), 2000);
        assert_eq!(policy.next_rest, REST);
    }

    #[test]
    fn it_falls_after_a_while_without_work() {
        let mut policy = grown();
        let idle = Seen {
            time: EVERY,
            ..Seen::default()
        };
        let mut looks = 0;
        while policy.look(idle).is_none() {
            looks += 1;
        }
        assert_eq!(policy.prefetch(), 32);
        assert!(EVERY * looks >= SLACK);
        assert!(policy.rest.is_zero());
    }

    #[test]
    fn payloads_bound_it() {
        for (size, queues, prefetch) in [
            (64 << 10, 1, 512),
            (64 << 10, 8, 64),
            (300 << 10, 1, 109),
            (1 << 20, 1, 32),
        ] {
            let mut policy = Policy::new(32, queues);
            for _ in 0..100 {
                let seen = busy(&policy, micros(50), micros(2500));
                let bytes = seen.taken * size;
                policy.look(Seen { bytes, ..seen });
            }
            assert_eq!(policy.prefetch(), prefetch, "{size} bytes");
        }
        let mut policy = grown();
        let seen = busy(&policy, micros(50), micros(2500));
        let bytes = seen.taken << 20;
        assert_eq!(policy.look(Seen { bytes, ..seen }), Some(32));
    }

    #[test]
    fn nothing_is_held_ahead_beside_what_comes_from_a_crash() {
        let mut policy = Policy::new(32, 1);
        let seen = busy(&policy, micros(50), micros(2500));
        let crashed = Seen {
            is_crashed: true,
            ..seen
        };
        assert_eq!(policy.look(crashed), None);
        assert!(work(&mut policy, micros(50), micros(2500), 50).is_empty());
    }

    #[test]
    fn more_slots_than_the_most_are_what_it_stays_at() {
        for slots in [1024, 4000, 100_000] {
            let mut policy = Policy::new(slots, 1);
            let least = policy.prefetch();
            assert!(work(&mut policy, micros(50), micros(2500), 50).is_empty());
            assert_eq!(usize::from(least), slots.min(u16::MAX.into()));
        }
        assert_eq!(Prefetch::Automatic.at_most(1), MOST);
        assert_eq!(Prefetch::Fixed(3).at_most(32), 3);
    }
}
