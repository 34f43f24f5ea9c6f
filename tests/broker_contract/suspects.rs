//! What every broker promises of suspects, which are messages released on trial.

use std::time::Duration;

use scutwork::broker::{Broker, Delivery, Part, Record, Standing, Suspects};
use scutwork::name::QueueName;
use scutwork::settlement::Settlement;

use super::{PATIENCE, Subject, assert_nothing_before_a_marker, done, number, numbered, take};
use crate::support::waiting::await_depth;

/// Longer than it takes to see a suspect, or that its queue was paused.
const SEEN_WITHIN: Duration = Duration::from_secs(4);

fn on_trial() -> Settlement {
    Settlement::Release {
        after: Duration::ZERO,
        record: Record {
            attempt: 2,
            on_trial: true,
            ..Record::default()
        },
    }
}

/// Makes suspects of the messages `0` to `count` of a queue.
async fn suspect(broker: &dyn Broker, queue: &QueueName, count: u32) {
    broker.publish(queue, numbered(count), None).await.unwrap();
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    for delivery in take(&mut consumer, count as usize).await {
        assert_eq!(delivery.standing, Standing::Ordinary);
        delivery.settle(on_trial()).await.unwrap();
    }
    consumer.stop().await;
}

async fn next(suspects: &mut Box<dyn Suspects>) -> Delivery {
    let next = async {
        loop {
            suspects.waiting().await;
            if let Some(suspect) = suspects.take().await {
                return suspect;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("a suspect comes")
}

pub(super) async fn a_suspect_is_handed_to_no_consumer_but_alone(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    // It looks before there is anything, as a worker does that another one's suspect comes to.
    let mut suspects = other.suspects(&queue).await.unwrap();
    assert!(suspects.take().await.is_none());
    suspect(&*broker, &queue, 1).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
    let held = next(&mut suspects).await;
    assert_eq!((number(&held), held.crashes), (0, 0));
    assert_eq!(held.standing, Standing::OnTrial);
    let record = &held.message.record;
    assert_eq!((record.attempt, record.on_trial), (2, true));
    assert!(suspects.take().await.is_none());
    held.settle(done()).await.unwrap();
    assert!(suspects.take().await.is_none());
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
}

pub(super) async fn a_crash_on_trial_is_counted_against_the_one_that_ran(subject: &impl Subject) {
    let (holder, heir, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    suspect(&*holder, &queue, 2).await;
    let mut suspects = heir.suspects(&queue).await.unwrap();
    let mut dying = holder.suspects(&queue).await.unwrap();
    let held = next(&mut dying).await;
    holder.close().await;
    assert!(!held.hold.is_live());
    let mut crashes = Vec::new();
    for _ in 0..2 {
        let suspect = next(&mut suspects).await;
        crashes.push((number(&suspect), suspect.crashes));
        suspect.settle(done()).await.unwrap();
    }
    crashes.sort_unstable();
    let mut expected = vec![(number(&held), 1), (1 - number(&held), 0)];
    expected.sort_unstable();
    assert_eq!(crashes, expected);
}

pub(super) async fn a_trial_that_was_interrupted_counts_no_crash(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    suspect(&*broker, &queue, 1).await;
    let mut suspects = broker.suspects(&queue).await.unwrap();
    next(&mut suspects).await.settle(on_trial()).await.unwrap();
    let again = next(&mut suspects).await;
    assert_eq!((again.crashes, again.message.record.on_trial), (0, true));
    again.settle(done()).await.unwrap();
}

pub(super) async fn suspects_are_counted_and_purged_with_what_is_ready(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    suspect(&*broker, &queue, 2).await;
    broker.publish(&queue, numbered(3), None).await.unwrap();
    await_depth(&*broker, &queue, |depth| {
        (depth.ready, depth.delayed, depth.dead) == (5, 0, 0)
    })
    .await;
    assert_eq!(broker.purge(&queue, Part::Ready).await.unwrap(), Some(5));
    let mut suspects = broker.suspects(&queue).await.unwrap();
    assert!(suspects.take().await.is_none());
}

pub(super) async fn a_paused_queue_tries_nobody(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    suspect(&*broker, &queue, 1).await;
    broker.set_paused(&queue, true).await.unwrap();
    let mut suspects = broker.suspects(&queue).await.unwrap();
    let seen = tokio::time::timeout(SEEN_WITHIN, suspects.waiting()).await;
    assert!(seen.is_err(), "a paused queue shows a suspect");
    broker.set_paused(&queue, false).await.unwrap();
    next(&mut suspects).await.settle(done()).await.unwrap();
}
