//! What every broker promises of counting, pausing and purging a queue.

use std::time::Duration;

use scutwork::broker::Part;

use super::{Subject, bare, dead, done, next, number, numbered, retry, take};
use crate::support::waiting::await_depth;

/// Longer than a consumer may take to see that its queue was paused.
pub(super) const PAUSE_IS_SEEN: Duration = Duration::from_secs(4);

pub(super) async fn a_queue_that_nobody_made_has_no_depth(subject: &impl Subject) {
    let broker = subject.connect().await;
    assert_eq!(broker.depth(&subject.queue()).await.unwrap(), None);
}

pub(super) async fn a_paused_queue_hands_out_nothing_until_it_is_resumed(subject: &impl Subject) {
    let (broker, operator, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    operator.set_paused(&queue, true).await.unwrap();
    operator.set_paused(&queue, true).await.unwrap();
    // There is no sign but time that every consumer has seen it.
    tokio::time::sleep(PAUSE_IS_SEEN).await;
    broker.publish(&queue, vec![bare("0")], None).await.unwrap();
    let mut into = Vec::new();
    let taken = tokio::time::timeout(PAUSE_IS_SEEN, consumer.next(&mut into, 1)).await;
    assert!(taken.is_err(), "a paused queue handed out {into:?}");
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().ready, 1);
    operator.set_paused(&queue, false).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((number(&delivery), delivery.crashes), (0, 0));
    delivery.settle(done()).await.unwrap();
}

pub(super) async fn a_pause_is_seen_by_brokers_that_come_later(subject: &impl Subject) {
    let queue = subject.queue();
    let operator = subject.connect().await;
    assert!(!operator.is_paused(&queue).await.unwrap());
    operator.set_paused(&queue, true).await.unwrap();
    operator.close().await;
    let broker = subject.connect().await;
    assert!(broker.is_paused(&queue).await.unwrap());
    broker.publish(&queue, vec![bare("0")], None).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let mut into = Vec::new();
    let taken = tokio::time::timeout(PAUSE_IS_SEEN, consumer.next(&mut into, 1)).await;
    assert!(taken.is_err(), "a paused queue handed out {into:?}");
    broker.set_paused(&queue, false).await.unwrap();
    assert!(!broker.is_paused(&queue).await.unwrap());
    next(&mut consumer).await.settle(done()).await.unwrap();
}

pub(super) async fn what_was_handed_out_before_a_pause_can_be_settled(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker.publish(&queue, numbered(2), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    let mut held = take(&mut consumer, 2).await;
    broker.set_paused(&queue, true).await.unwrap();
    tokio::time::sleep(PAUSE_IS_SEEN).await;
    held.remove(0).settle(done()).await.unwrap();
    held.remove(0)
        .settle(retry(Duration::ZERO, 2))
        .await
        .unwrap();
    await_depth(&*broker, &queue, |depth| depth.ready == 1).await;
    consumer.stop().await;
}

pub(super) async fn a_purge_removes_the_part_that_was_named_and_counts_it(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    assert_eq!(broker.purge(&queue, Part::Ready).await.unwrap(), None);
    broker.publish(&queue, numbered(3), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 3).await.unwrap();
    let mut held = take(&mut consumer, 3).await;
    held.pop().unwrap().settle(dead()).await.unwrap();
    let late = Some(Duration::from_secs(600));
    broker.publish(&queue, numbered(2), late).await.unwrap();
    consumer.stop().await;
    broker.publish(&queue, numbered(4), None).await.unwrap();
    for (part, removed) in [(Part::Ready, 4), (Part::Delayed, 2), (Part::Dead, 1)] {
        await_depth(&*broker, &queue, |depth| match part {
            Part::Ready => depth.ready == removed,
            Part::Delayed => depth.delayed == removed,
            Part::Dead => depth.dead == removed,
        })
        .await;
        assert_eq!(
            broker.purge(&queue, part).await.unwrap(),
            Some(removed),
            "{part:?}"
        );
        assert_eq!(broker.purge(&queue, part).await.unwrap(), Some(0));
    }
    for delivery in held {
        delivery.settle(done()).await.unwrap();
    }
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}
