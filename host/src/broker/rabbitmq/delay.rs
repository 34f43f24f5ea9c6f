//! [`Delay`]: a wait rounded to what the delay queues of a task queue can hold, and their names.
//!
//! Level `n` is a queue that holds everything for 250 ms times 2 to the `n`, and an exchange before
//! it. A message's routing key spells its delay in binary, the highest level first; at each level's
//! exchange a 1 leads through the queue and a 0 past it, down to the task queue:
//!
//! ```text
//! Q.delay.2 --1--> [Q.delay.2: 1 s] --> Q.delay.1 --0--> Q.delay.0 --1--> [Q.delay.0: 250 ms] --> Q.delay.due --> Q
//! ```
//!
//! So any delay needs no more than [`LEVELS`] queues, each with one time to live: a message never
//! waits behind a longer one. The broker does it alone, whether or not a worker is there.

use std::time::Duration;

use crate::name::QueueName;

/// How many levels there may be: enough for the 30 days of the longest delay.
pub(super) const LEVELS: u32 = 24;

/// What the lowest level holds a message for, in milliseconds.
const UNIT: u128 = 250;

/// How many of a delay's highest bits count, so that a message passes seven queues at most. What
/// is lost is 1/128 of the delay at most.
const SIGNIFICANT: u32 = 7;

/// A wait, in units of the lowest level: from 1 to 2 to the [`LEVELS`], exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay(u32);

impl Delay {
    /// Rounds to the nearest that the queues can hold.
    pub(super) fn nearest(wait: Duration) -> Self {
        let longest = (1_u128 << LEVELS) - 1;
        let whole = (wait.as_millis() / UNIT).clamp(1, longest);
        let length = u128::BITS - whole.leading_zeros();
        let dropped = length.saturating_sub(SIGNIFICANT);
        // In one go: rounding to units first and to bits then would add up the two errors.
        let step = UNIT << dropped;
        let steps = (wait.as_millis() + step / 2) / step;
        let units = (steps << dropped).clamp(1, longest >> dropped << dropped);
        Delay(u32::try_from(units).expect("clamped to 24 bits"))
    }

    /// The level that the message enters at: the highest that holds it.
    pub(super) fn top(self) -> u32 {
        u32::BITS - 1 - self.0.leading_zeros()
    }

    /// The way through the levels.
    pub(super) fn routing_key(self) -> String {
        let digits: Vec<&str> = (0..LEVELS)
            .rev()
            .map(|level| if self.0 >> level & 1 == 1 { "1" } else { "0" })
            .collect();
        digits.join(".")
    }
}

/// What a level's exchange compares a routing key with, to tell whether the level's digit is `digit`.
pub(super) fn binding_key(level: u32, digit: u8) -> String {
    let before = LEVELS - 1 - level;
    let mut key = "*.".repeat(before as usize);
    key.push_str(&digit.to_string());
    if level > 0 {
        key.push_str(".#");
    }
    key
}

/// How long a level holds a message, in milliseconds.
pub(super) fn time_to_live(level: u32) -> i64 {
    250 << level
}

/// A level's exchange, and its queue.
pub(super) fn level_name(queue: &QueueName, level: u32) -> String {
    format!("{queue}.delay.{level}")
}

/// The exchange after the last level.
pub(super) fn due_name(queue: &QueueName) -> String {
    format!("{queue}.delay.due")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::MAX_DELAY;

    fn held(delay: Delay) -> Duration {
        (0..LEVELS)
            .filter(|level| delay.0 >> level & 1 == 1)
            .map(|level| Duration::from_millis(time_to_live(level).try_into().unwrap()))
            .sum()
    }

    #[test]
    fn every_delay_is_held_to_within_a_hundredth_or_half_a_unit() {
        let mut wait = Duration::from_millis(1);
        while wait <= MAX_DELAY {
            let delay = Delay::nearest(wait);
            let error = held(delay).abs_diff(wait);
            let allowed = Duration::from_millis(250).max(wait / 100);
            assert!(error <= allowed, "{wait:?} is held for {:?}", held(delay));
            assert!(delay.0.count_ones() <= SIGNIFICANT, "{wait:?}");
            wait = wait.mul_f64(1.003) + Duration::from_millis(1);
        }
        assert!(held(Delay::nearest(MAX_DELAY)).abs_diff(MAX_DELAY) < MAX_DELAY / 100);
    }

    #[test]
    fn a_delay_of_nothing_or_of_too_much_is_held_as_well_as_can_be() {
        assert_eq!(Delay::nearest(Duration::ZERO), Delay(1));
        assert_eq!(Delay::nearest(Duration::MAX).top(), LEVELS - 1);
    }

    #[test]
    fn a_routing_key_has_a_digit_for_each_level_and_each_level_reads_its_own() {
        let key = Delay(0b101).routing_key();
        assert_eq!(key, format!("{}1.0.1", "0.".repeat(21)));
        let digits: Vec<&str> = key.split('.').collect();
        for level in 0..LEVELS {
            let binding = binding_key(level, 1);
            let position = binding.split('.').position(|word| word == "1").unwrap();
            assert_eq!(digits[position] == "1", [0, 2].contains(&level), "{level}");
        }
    }
}
