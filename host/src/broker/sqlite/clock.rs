//! [`Clock`]: the queue's own time. It goes at the machine's pace, sleep included, and nobody sets it.
//!
//! By the wall clock, one step back would keep everything from being due, and one step forward would
//! end every delay. So the wall clock is asked only how long the machine was off, and what it was
//! changed by before then is taken off.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::row;

/// How old the last note may be before [`Clock::note`] makes another, in milliseconds.
const NOTE_AFTER: i64 = 50_000;

/// The time of one file's queues. All processes of one run of the machine agree on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: i64,
    pace: Pace,
}

/// What a queue's time is counted on top of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// The time since the machine was started.
    SinceBoot,
    /// The wall clock, where the machine does not tell its runs apart.
    Wall,
}

/// What the file says of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    boot: String,
    base: i64,
    skew: i64,
    seen: i64,
}

/// What the machine says, in milliseconds.
struct Reading {
    /// Which run of the machine this is.
    boot: String,
    pace: Pace,
    elapsed: i64,
    wall: i64,
}

impl Clock {
    /// Reads the file's time, and sets it if this is its first use or the machine's first since a
    /// restart.
    pub(super) fn open(connection: &mut Connection) -> rusqlite::Result<Clock> {
        let reading = Reading::take();
        let pace = reading.pace;
        let current = |setting: &Setting| setting.boot == reading.boot;
        if let Some(setting) = load(connection)?.filter(current) {
            return Ok(Clock {
                base: setting.base,
                pace,
            });
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let setting = set(load(&transaction)?, &reading);
        transaction.execute(
            "INSERT OR REPLACE INTO clock (id, boot, base, skew, seen) VALUES (1, ?1, ?2, ?3, ?4)",
            params![setting.boot, setting.base, setting.skew, setting.seen],
        )?;
        transaction.commit()?;
        Ok(Clock {
            base: setting.base,
            pace,
        })
    }

    /// Milliseconds: since 1970, but for what the wall clock was changed by.
    pub(super) fn now(self) -> i64 {
        self.base + self.pace.elapsed()
    }

    /// Notes for the next run of the machine how far this one has come, unless somebody just did.
    pub(super) fn note(self, connection: &Connection) -> rusqlite::Result<()> {
        let now = self.now();
        connection
            .prepare_cached("UPDATE clock SET skew = ?1, seen = ?2 WHERE seen < ?3")?
            .execute([wall() - now, now, now - NOTE_AFTER])
            .map(drop)
    }
}

fn load(connection: &Connection) -> rusqlite::Result<Option<Setting>> {
    connection
        .prepare("SELECT boot, base, skew, seen FROM clock")?
        .query_row([], |row| {
            Ok(Setting {
                boot: row.get(0)?,
                base: row.get(1)?,
                skew: row.get(2)?,
                seen: row.get(3)?,
            })
        })
        .optional()
}

/// The setting for this run of the machine, after the `last` one.
fn set(last: Option<Setting>, reading: &Reading) -> Setting {
    let now = match last {
        None => reading.wall,
        Some(last) if last.boot == reading.boot => return last,
        // A machine that keeps no time while it is off begins in the past.
        Some(last) => last.seen.max(reading.wall - last.skew),
    };
    Setting {
        boot: reading.boot.clone(),
        base: now - reading.elapsed,
        skew: reading.wall - now,
        seen: now,
    }
}

impl Reading {
    fn take() -> Reading {
        let boot = boot();
        let pace = match boot {
            Some(_) => Pace::SinceBoot,
            None => Pace::Wall,
        };
        Reading {
            boot: boot.unwrap_or_default(),
            pace,
            elapsed: pace.elapsed(),
            wall: wall(),
        }
    }
}

impl Pace {
    fn elapsed(self) -> i64 {
        match self {
            Pace::SinceBoot => since_boot(),
            Pace::Wall => wall(),
        }
    }
}

fn wall() -> i64 {
    row::to_millis(SystemTime::now())
}

/// The id of this run of the machine.
fn boot() -> Option<String> {
    if cfg!(target_os = "linux") {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    } else {
        None
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> i64 {
    wall()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn reading(boot: &str, elapsed: i64, wall: i64) -> Reading {
        Reading {
            boot: boot.to_owned(),
            pace: Pace::SinceBoot,
            elapsed,
            wall,
        }
    }

    /// The queue's time after a restart of the machine.
    fn after(last: &Setting, wall: i64) -> i64 {
        let setting = set(Some(last.clone()), &reading("next", 5_000, wall));
        assert_eq!(setting.skew, wall - (setting.base + 5_000));
        setting.base + 5_000
    }

    #[test]
    fn a_file_begins_with_the_wall_clock_and_keeps_its_time_while_the_machine_runs() {
        let first = set(None, &reading("this", 1_000, 100 * HOUR));
        assert_eq!(first.base + 1_000, 100 * HOUR);
        // The wall clock went back by a day meanwhile.
        let later = set(Some(first.clone()), &reading("this", 2_000, 76 * HOUR));
        assert_eq!(later, first);
    }

    #[test]
    fn over_a_restart_time_goes_on_by_the_wall_clock_without_its_changes() {
        let last = |skew| Setting {
            boot: "this".to_owned(),
            base: 90 * HOUR,
            skew,
            seen: 100 * HOUR,
        };
        for (case, last, wall, expected) in [
            ("two hours off", last(0), 102 * HOUR, 102 * HOUR),
            (
                "set forward before",
                last(24 * HOUR),
                126 * HOUR,
                102 * HOUR,
            ),
            ("set back before", last(-24 * HOUR), 78 * HOUR, 102 * HOUR),
            ("a clock that lost its time", last(0), 0, 100 * HOUR),
        ] {
            assert_eq!(after(&last, wall), expected, "{case}");
        }
    }
}
