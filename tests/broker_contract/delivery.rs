//! What every broker promises of handing messages over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use scutwork::broker::{Message, Record, ReplyTo};

use super::{
    PATIENCE, Subject, assert_nothing_before_a_marker, bare, done, next, number, numbered, take,
};
use crate::support::waiting::await_depth;

pub(super) async fn a_published_message_is_delivered_once_and_unchanged(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let full = Message {
        plugin: Some("thumb".into()),
        id: Some("0190-ä".into()),
        content_type: Some("image/png".into()),
        // In the order of their names: AMQP's table of headers keeps no other.
        headers: [("a", ""), ("m", "ü 1"), ("z", "last")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: (0..1 << 20).map(|_| fastrand::u8(..)).collect(),
        reply_to: Some(ReplyTo {
            address: "nobody".into(),
            correlation_id: Some("c-1".into()),
            notify: true,
        }),
        priority: None,
        record: Record {
            attempt: 3,
            parked_since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            on_trial: false,
        },
        unreadable: None,
    };
    let empty = Message::default();
    broker
        .publish(&queue, vec![full.clone(), empty.clone()], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let deliveries = take(&mut consumer, 2).await;
    assert_eq!(deliveries[0].message, full);
    assert_eq!(deliveries[1].message, empty);
    for delivery in deliveries {
        assert_eq!(delivery.crashes, 0);
        assert!(delivery.hold.is_live());
        let mut message = delivery.message;
        message.reply_to = None;
        delivery
            .hold
            .settle(message, Arc::new(done()))
            .await
            .unwrap();
    }
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
}

pub(super) async fn a_message_waits_on_a_queue_that_nobody_has_opened(subject: &impl Subject) {
    let queue = subject.queue();
    let producer = subject.connect().await;
    producer
        .publish(&queue, vec![bare("early")], None)
        .await
        .unwrap();
    producer.close().await;
    let broker = subject.connect().await;
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(&delivery.message.body[..], b"early");
    delivery.settle(done()).await.unwrap();
}

pub(super) async fn a_task_that_is_done_is_gone_for_good(subject: &impl Subject) {
    let (first, queue) = (subject.connect().await, subject.queue());
    first
        .publish(&queue, vec![bare("once")], None)
        .await
        .unwrap();
    let mut consumer = first.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    first.close().await;
    let second = subject.connect().await;
    let mut consumer = second.consume(&queue, 1).await.unwrap();
    assert_nothing_before_a_marker(&*second, &queue, &mut consumer).await;
}

pub(super) async fn an_unsettled_message_goes_to_another_when_its_holder_goes_and_counts_a_crash(
    subject: &impl Subject,
) {
    let (holder, heir, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    holder
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = holder.consume(&queue, 1).await.unwrap();
    let held = next(&mut consumer).await;
    let mut other = heir.consume(&queue, 1).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    holder.close().await;
    let again = next(&mut other).await;
    assert_eq!(
        (again.message.clone(), again.crashes),
        (held.message.clone(), 1)
    );
    assert!(!held.hold.is_live());
    again.settle(done()).await.unwrap();
}

pub(super) async fn two_consumers_share_a_queue_and_no_message_goes_to_both(
    subject: &impl Subject,
) {
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    let mut first = one.consume(&queue, 5).await.unwrap();
    let mut second = two.consume(&queue, 5).await.unwrap();
    one.publish(&queue, numbered(10), None).await.unwrap();
    // Each holds as many as it may, so neither could take the other's share.
    let (first, second) = tokio::join!(take(&mut first, 5), take(&mut second, 5));
    let numbers: BTreeSet<u32> = first.iter().chain(&second).map(number).collect();
    assert_eq!(numbers, (0..10).collect());
    for delivery in first.into_iter().chain(second) {
        delivery.settle(done()).await.unwrap();
    }
}

pub(super) async fn stopping_gives_back_what_was_not_handed_out(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(10), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let kept = next(&mut consumer).await;
    consumer.stop().await;
    let mut heir = other.consume(&queue, 10).await.unwrap();
    let rest = take(&mut heir, 9).await;
    let mut numbers: BTreeSet<u32> = rest.iter().map(number).collect();
    assert!(numbers.insert(number(&kept)));
    assert_eq!(numbers, (0..10).collect());
    for delivery in rest {
        assert_eq!(delivery.crashes, 0);
        delivery.settle(done()).await.unwrap();
    }
    kept.settle(done()).await.unwrap();
}

pub(super) async fn ten_thousand_messages_through_two_consumers_all_arrive(subject: &impl Subject) {
    const COUNT: u32 = 10_000;
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    one.publish(&queue, numbered(COUNT), None).await.unwrap();
    let (seen, mut arrived) = tokio::sync::mpsc::channel(64);
    let mut loops = Vec::new();
    for broker in [&one, &two] {
        let mut consumer = broker.consume(&queue, 200).await.unwrap();
        let seen = seen.clone();
        loops.push(tokio::spawn(async move {
            loop {
                let mut batch = Vec::new();
                consumer.next(&mut batch, 200).await;
                let numbers: Vec<u32> = batch.iter().map(number).collect();
                let settled = futures_util::future::join_all(
                    batch.into_iter().map(|delivery| delivery.settle(done())),
                );
                assert!(settled.await.into_iter().all(|settled| settled.is_ok()));
                if seen.send(numbers).await.is_err() {
                    return;
                }
            }
        }));
    }
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    while counts.len() < COUNT as usize {
        let numbers = tokio::time::timeout(PATIENCE, arrived.recv())
            .await
            .expect("messages arrive")
            .unwrap();
        for number in numbers {
            *counts.entry(number).or_default() += 1;
        }
    }
    assert!(counts.values().all(|count| *count == 1));
    for handle in loops {
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
    }
    await_depth(&*one, &queue, |depth| {
        depth.ready == 0 && depth.running.unwrap_or(0) == 0
    })
    .await;
}

pub(super) async fn a_cancelled_next_has_taken_nothing(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let mut consumer = broker.consume(&queue, 20).await.unwrap();
    broker.publish(&queue, numbered(20), None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        // Cancelled wherever one poll leaves it, over and over.
        let mut into = Vec::new();
        tokio::select! {
            biased;
            () = consumer.next(&mut into, 1) => {}
            () = tokio::task::yield_now() => {}
        }
        for delivery in into {
            seen.push(number(&delivery));
            delivery.settle(done()).await.unwrap();
        }
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

pub(super) async fn two_queues_do_not_mix(subject: &impl Subject) {
    let (broker, left, right) = (subject.connect().await, subject.queue(), subject.queue());
    broker
        .publish(&left, vec![bare("left")], None)
        .await
        .unwrap();
    broker
        .publish(&right, vec![bare("right")], None)
        .await
        .unwrap();
    for (queue, body) in [(&left, "left"), (&right, "right")] {
        let mut consumer = broker.consume(queue, 1).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(&delivery.message.body[..], body.as_bytes());
        delivery.settle(done()).await.unwrap();
        assert_nothing_before_a_marker(&*broker, queue, &mut consumer).await;
    }
}
