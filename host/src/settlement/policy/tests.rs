//! What each outcome comes to.

use super::*;
use crate::outcome::{Limit, Output};
use crate::task::BadTask;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn settle(outcome: Outcome, record: Record, now: SystemTime) -> Settlement {
    let facts = Facts {
        task: "id",
        record: &record,
        plugin: Some("thumb"),
        digest: Some("d1"),
        worker: "w1",
        now,
        dice: 0.5,
    };
    RetryPolicy::default().settle(outcome, Parking::default(), &facts)
}

fn attempt(attempt: u32) -> Record {
    Record {
        attempt,
        ..Record::default()
    }
}

fn asks_for_retry(delay: Option<Duration>) -> Outcome {
    Outcome::Failed(Failure::PluginError {
        code: "c".into(),
        message: "m".into(),
        delay,
    })
}

#[test]
fn a_done_task_is_acked_with_its_output() {
    let output = Output {
        content_type: Some("a/b".into()),
        body: Bytes::from_static(b"out"),
    };
    match settle(Outcome::Done(output), attempt(2), NOW) {
        Settlement::Done { reply } => {
            assert_eq!(
                (reply.kind, reply.attempt, &reply.body[..]),
                (ReplyKind::Done, 2, &b"out"[..])
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn failures_that_may_pass_spend_an_attempt_and_come_back_with_backoff() {
    let passing = [
        asks_for_retry(None),
        Outcome::Failed(Failure::Trapped {
            message: "t".into(),
        }),
        Outcome::Failed(Failure::LimitExceeded {
            limit: Limit::Memory,
            message: "l".into(),
        }),
    ];
    for outcome in passing {
        match settle(outcome, attempt(2), NOW) {
            Settlement::Retry {
                after,
                record,
                reply,
            } => {
                assert_eq!(after, Duration::from_secs(30));
                assert_eq!(record.attempt, 3);
                assert_eq!(reply.kind, ReplyKind::Retry);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_delay_that_the_plugin_asks_for_is_kept_up_to_thirty_days() {
    for (asked, kept) in [
        (Duration::from_millis(7), Duration::from_millis(7)),
        (Duration::MAX, MAX_DELAY),
    ] {
        match settle(asks_for_retry(Some(asked)), attempt(1), NOW) {
            Settlement::Retry { after, .. } => assert_eq!(after, kept),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_attempt_dies_with_its_cause() {
    match settle(asks_for_retry(None), attempt(5), NOW) {
        Settlement::Dead { letter, reply } => {
            assert_eq!(
                (letter.reason.as_str(), letter.attempts),
                ("plugin-error", 5)
            );
            assert_eq!(
                (letter.code.as_deref(), letter.digest.as_deref()),
                (Some("c"), Some("d1"))
            );
            assert_eq!(
                (reply.kind, &reply.body[..]),
                (ReplyKind::Dead, &b"c: m"[..])
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_can_never_work_dies_at_once() {
    let hopeless = [
        (
            Failure::Rejected {
                code: "c".into(),
                message: "m".into(),
            },
            "rejected",
            1,
        ),
        (
            Failure::BadTask(BadTask::PayloadTooLarge { size: 2, limit: 1 }),
            "bad-task",
            0,
        ),
        (Failure::Crashed { crashes: 4 }, "crashed", 0),
    ];
    for (failure, reason, attempts) in hopeless {
        match settle(Outcome::Failed(failure), attempt(1), NOW) {
            Settlement::Dead { letter, .. } => {
                assert_eq!(
                    (letter.reason.as_str(), letter.attempts),
                    (reason, attempts)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_interrupted_task_keeps_its_attempt_and_its_record() {
    let record = Record {
        attempt: 3,
        parked_since: Some(NOW),
        on_trial: true,
    };
    assert_eq!(
        settle(Outcome::Interrupted, record.clone(), NOW),
        Settlement::Release {
            after: Duration::ZERO,
            record
        }
    );
}

#[test]
fn a_task_for_an_unknown_plugin_is_parked_until_its_time_is_over() {
    let unknown = || {
        Outcome::Failed(Failure::UnknownPlugin {
            message: "m".into(),
        })
    };
    let ttl = Parking::default().ttl;
    let Settlement::Park {
        after,
        record,
        reply,
    } = settle(unknown(), attempt(1), NOW)
    else {
        panic!("not parked");
    };
    assert_eq!((after, record.attempt), (Duration::from_secs(5), 1));
    assert_eq!(record.parked_since, Some(NOW));
    assert_eq!(
        reply.map(|reply| reply.kind),
        Some(ReplyKind::Parked),
        "told the first time"
    );
    let last = Duration::from_secs(1);
    let late = settle(unknown(), record.clone(), NOW + ttl - last);
    assert_eq!(
        late,
        Settlement::Park {
            after: last,
            record: record.clone(),
            reply: None
        }
    );
    let over = settle(unknown(), record, NOW + ttl);
    assert!(matches!(over, Settlement::Dead { letter, .. } if letter.reason == "unknown-plugin"));
}

#[test]
fn a_task_parked_since_the_future_waits_from_now_on() {
    let outcome = Outcome::Failed(Failure::UnknownPlugin {
        message: "m".into(),
    });
    let record = Record {
        parked_since: Some(NOW + Duration::from_secs(1 << 31)),
        ..attempt(1)
    };
    let Settlement::Park { record, .. } = settle(outcome, record, NOW) else {
        panic!("not parked");
    };
    assert_eq!(record.parked_since, Some(NOW));
}

#[test]
fn backoff_grows_to_its_maximum_and_never_overflows() {
    let backoff = Backoff::default();
    let waits: Vec<u64> = [1, 2, 3, 9, 10, u32::MAX]
        .map(|n| backoff.after(n, 0.5).as_secs())
        .into();
    assert_eq!(waits, [15, 30, 60, 3600, 3600, 3600]);
    assert_eq!(backoff.after(1, 0.0), Duration::from_secs_f64(13.5));
    assert_eq!(backoff.after(1, 1.0), Duration::from_secs_f64(16.5));
    let endless = Backoff {
        initial: Duration::MAX,
        factor: f64::MAX,
        max: Duration::MAX,
        jitter: 1.0,
    };
    assert_eq!(endless.after(9, 1.0), MAX_DELAY);
}
