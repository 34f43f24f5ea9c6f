//! What every broker promises of messages that are due later.

use std::time::{Duration, Instant};

use super::{Subject, bare, done, next, retry};
use crate::support::waiting::{assert_not_early, await_depth};

pub(super) async fn a_retry_comes_back_after_its_delay_and_not_before(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let delay = Duration::from_secs(2);
    let started = Instant::now();
    next(&mut consumer)
        .await
        .settle(retry(delay, 2))
        .await
        .unwrap();
    let again = next(&mut consumer).await;
    assert_not_early(started, delay);
    assert_eq!((again.message.record.attempt, again.crashes), (2, 0));
    again.settle(done()).await.unwrap();
}

pub(super) async fn a_delayed_message_is_not_early(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    // Longer than a queue that was only just made is waited for.
    let delay = Duration::from_secs(4);
    let started = Instant::now();
    broker
        .publish(&queue, vec![bare("later")], Some(delay))
        .await
        .unwrap();
    await_depth(&*broker, &queue, |depth| {
        depth.delayed == 1 && depth.ready == 0
    })
    .await;
    let delivery = next(&mut consumer).await;
    assert_not_early(started, delay);
    delivery.settle(done()).await.unwrap();
}
