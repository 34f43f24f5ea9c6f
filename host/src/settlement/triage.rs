//! [`triage`]: what to do with a message that was there when workers died, before it runs.

use crate::broker::{Record, Standing};

/// A message that came back so often is no longer run beside others.
const CRASH_LIMIT: u32 = 3;

/// A message that came back so often from running alone is the cause. Not once: to the broker, a
/// connection that breaks looks like a worker that dies.
const TRIALS: u32 = 2;

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triage {
    /// Nothing speaks against it, or it is on trial right now.
    Run,
    /// It may be what kills workers. Release it marked [`Record::on_trial`], so that it is tried alone.
    Suspect,
    /// Workers died while it ran alone.
    Guilty,
}

/// Sorts a delivery by what is known of its past.
///
/// A broker counts a crash against every message that the worker held, not against the one that
/// killed it. So a message that was there too often is only suspected. It leaves the queue for the
/// suspects, each of which runs while its worker runs nothing else: a crash then is its own, and those
/// that were merely neighbours come through.
pub fn triage(crashes: u32, record: &Record, standing: Standing) -> Triage {
    match standing {
        Standing::Ordinary if record.on_trial || crashes >= CRASH_LIMIT => Triage::Suspect,
        Standing::OnTrial if crashes >= TRIALS => Triage::Guilty,
        Standing::Ordinary | Standing::OnTrial | Standing::Native => Triage::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_task_that_ran_alone_is_found_guilty_of_a_crash() {
        let clear = Record::default();
        let on_trial = Record {
            on_trial: true,
            ..Record::default()
        };
        for (crashes, record, standing, verdict) in [
            (0, &clear, Standing::Ordinary, Triage::Run),
            (CRASH_LIMIT - 1, &clear, Standing::Ordinary, Triage::Run),
            (CRASH_LIMIT, &clear, Standing::Ordinary, Triage::Suspect),
            (u32::MAX, &clear, Standing::Ordinary, Triage::Suspect),
            (0, &on_trial, Standing::Ordinary, Triage::Suspect),
            (0, &on_trial, Standing::OnTrial, Triage::Run),
            (TRIALS - 1, &on_trial, Standing::OnTrial, Triage::Run),
            (TRIALS, &on_trial, Standing::OnTrial, Triage::Guilty),
        ] {
            assert_eq!(
                triage(crashes, record, standing),
                verdict,
                "{crashes} {record:?} {standing:?}"
            );
        }
    }

    #[test]
    fn where_the_owner_has_policies_nothing_is_suspected() {
        for on_trial in [false, true] {
            let record = Record {
                on_trial,
                ..Record::default()
            };
            assert_eq!(triage(u32::MAX, &record, Standing::Native), Triage::Run);
        }
    }
}
