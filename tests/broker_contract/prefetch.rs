//! What every broker promises of how much it hands over at once.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use scutwork::broker::{Broker, Consumer, Delivery};
use scutwork::name::QueueName;

use super::oversight::PAUSE_IS_SEEN;
use super::{PATIENCE, Subject, bare, done, next, number, numbered, take};
use crate::support::waiting::await_depth;

pub(super) async fn prefetch_bounds_the_unsettled(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(4), None).await.unwrap();
    let mut bounded = broker.consume(&queue, 3).await.unwrap();
    let mut held = take(&mut bounded, 3).await;
    // The fourth is left for somebody else, though the first asks for it.
    let mut into = Vec::new();
    let mut free = other.consume(&queue, 3).await.unwrap();
    let fourth = tokio::select! {
        () = bounded.next(&mut into, 1) => panic!("a fourth delivery with three unsettled"),
        fourth = next(&mut free) => fourth,
    };
    assert_eq!(number(&fourth), 3);
    // A settlement makes room for one more.
    held.remove(0).settle(done()).await.unwrap();
    free.stop().await;
    broker.publish(&queue, vec![bare("4")], None).await.unwrap();
    let fifth = next(&mut bounded).await;
    assert_eq!(number(&fifth), 4);
    for delivery in held.into_iter().chain([fourth, fifth]) {
        delivery.settle(done()).await.unwrap();
    }
}

/// Settles all of these, which nobody died of.
async fn settle(held: Vec<Delivery>) {
    assert!(held.iter().all(|delivery| delivery.crashes == 0));
    for settled in join_all(held.into_iter().map(|one| one.settle(done()))).await {
        settled.unwrap();
    }
}

pub(super) async fn a_larger_prefetch_hands_out_more_beside_what_is_held(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(20), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    let mut held = take(&mut consumer, 2).await;
    consumer.set_prefetch(6);
    held.extend(take(&mut consumer, 4).await);
    // Six in all, or six beside the two; the rest is for somebody else.
    await_depth(&*broker, &queue, |depth| (12..=14).contains(&depth.ready)).await;
    consumer.stop().await;
    let mut heir = other.consume(&queue, 20).await.unwrap();
    let rest = take(&mut heir, 20 - held.len()).await;
    let numbers: BTreeSet<u32> = held.iter().chain(&rest).map(number).collect();
    assert_eq!(numbers, (0..20).collect());
    settle(held).await;
    settle(rest).await;
}

/// Whether a consumer that holds nothing leaves the second of two messages to others.
async fn takes_one_at_a_time(
    consumer: &mut Box<dyn Consumer>,
    broker: &dyn Broker,
    other: &dyn Broker,
    queue: &QueueName,
) -> bool {
    broker.publish(queue, numbered(2), None).await.unwrap();
    let first = next(consumer).await;
    let (mut second, mut elsewhere) = (Vec::new(), other.consume(queue, 1).await.unwrap());
    let mut theirs = Vec::new();
    let is_left = tokio::select! {
        () = consumer.next(&mut second, 1) => false,
        () = elsewhere.next(&mut theirs, 1) => true,
        () = tokio::time::sleep(PATIENCE) => panic!("nobody got the second message"),
    };
    elsewhere.stop().await;
    settle(vec![first]).await;
    settle(second).await;
    settle(theirs).await;
    is_left
}

pub(super) async fn a_smaller_prefetch_bounds_the_unsettled_and_takes_back_nothing(
    subject: &impl Subject,
) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(5), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 5).await.unwrap();
    let held = take(&mut consumer, 5).await;
    consumer.set_prefetch(1);
    assert!(held.iter().all(|delivery| delivery.hold.is_live()));
    settle(held).await;
    let soon =
        async { while !takes_one_at_a_time(&mut consumer, &*broker, &*other, &queue).await {} };
    tokio::time::timeout(PATIENCE, soon)
        .await
        .expect("it takes effect");
    // And for good.
    assert!(takes_one_at_a_time(&mut consumer, &*broker, &*other, &queue).await);
    consumer.set_prefetch(2);
    let soon =
        async { while takes_one_at_a_time(&mut consumer, &*broker, &*other, &queue).await {} };
    tokio::time::timeout(PATIENCE, soon)
        .await
        .expect("it grows again");
}

pub(super) async fn a_prefetch_that_changes_all_the_time_loses_nothing_and_counts_no_crash(
    subject: &impl Subject,
) {
    const COUNT: u32 = 2_000;
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker.publish(&queue, numbered(COUNT), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 4).await.unwrap();
    let mut numbers = BTreeSet::new();
    let mut held: Vec<Delivery> = Vec::new();
    for round in 0.. {
        if numbers.len() == COUNT as usize {
            break;
        }
        consumer.set_prefetch([64, 1, 7, 256, 0][round % 5]);
        // Some are held over the change, and some over the next.
        tokio::time::timeout(PATIENCE, consumer.next(&mut held, 20))
            .await
            .expect("deliveries come");
        for delivery in &held {
            assert_eq!(delivery.crashes, 0);
            numbers.insert(number(delivery));
        }
        // All, but where the next allows for more.
        let keep = if round % 5 == 2 { 3.min(held.len()) } else { 0 };
        settle(held.drain(keep..).collect()).await;
    }
    settle(held).await;
    assert_eq!(numbers, (0..COUNT).collect());
    consumer.stop().await;
    await_depth(&*broker, &queue, |depth| depth.ready == 0).await;
}

pub(super) async fn a_stop_while_the_prefetch_changes_gives_back_everything(
    subject: &impl Subject,
) {
    let (broker, other) = (subject.connect().await, subject.connect().await);
    // Wherever it is in the change.
    for delay in [0, 1, 2, 3, 5, 8, 13, 21].map(Duration::from_millis) {
        for (before, after) in [(2, 10), (10, 2)] {
            let queue = subject.queue();
            broker.publish(&queue, numbered(20), None).await.unwrap();
            let mut consumer = broker.consume(&queue, before).await.unwrap();
            let kept = vec![next(&mut consumer).await];
            consumer.set_prefetch(after);
            // Not for an event: to stop in the middle of something that shows nothing.
            tokio::time::sleep(delay).await;
            consumer.stop().await;
            let mut heir = other.consume(&queue, 20).await.unwrap();
            let rest = take(&mut heir, 20 - kept.len()).await;
            let numbers: BTreeSet<u32> = kept.iter().chain(&rest).map(number).collect();
            assert_eq!(numbers, (0..20).collect());
            settle(kept).await;
            settle(rest).await;
            heir.stop().await;
        }
    }
}

pub(super) async fn a_stop_while_much_is_settled_gives_back_everything(subject: &impl Subject) {
    const COUNT: u32 = 300;
    let (broker, other) = (subject.connect().await, subject.connect().await);
    for until in [1, 5, 20, 50, 100, 150, 200, 250] {
        let queue = subject.queue();
        broker.publish(&queue, numbered(COUNT), None).await.unwrap();
        let mut consumer = broker.consume(&queue, 8).await.unwrap();
        let (mut numbers, mut settling) = (BTreeSet::new(), Vec::new());
        while numbers.len() < until {
            let delivery = next(&mut consumer).await;
            numbers.insert(number(&delivery));
            settling.push(tokio::spawn(delivery.settle(done())));
        }
        consumer.stop().await;
        for settled in settling {
            settled.await.unwrap().unwrap();
        }
        let mut heir = other.consume(&queue, 300).await.unwrap();
        let rest = take(&mut heir, COUNT as usize - numbers.len()).await;
        numbers.extend(rest.iter().map(number));
        assert_eq!(numbers, (0..COUNT).collect());
        settle(rest).await;
        heir.stop().await;
    }
}

pub(super) async fn a_stop_with_much_in_hand_gives_back_everything(subject: &impl Subject) {
    const COUNT: u32 = 1000;
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(COUNT), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 500).await.unwrap();
    // While it is held, nothing that came after it can be acked by one word.
    let first = next(&mut consumer).await;
    consumer.stop().await;
    let mut numbers = BTreeSet::from([number(&first)]);
    settle(vec![first]).await;
    drop(consumer);
    let mut heir = other.consume(&queue, 1000).await.unwrap();
    let rest = take(&mut heir, COUNT as usize - 1).await;
    numbers.extend(rest.iter().map(number));
    assert_eq!(numbers, (0..COUNT).collect());
    settle(rest).await;
    heir.stop().await;
}

pub(super) async fn a_pause_while_the_prefetch_changes_is_kept_and_loses_nothing(
    subject: &impl Subject,
) {
    // More than can be taken until the pause is seen.
    const COUNT: u32 = 10_000;
    let (broker, operator, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(COUNT), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    operator.set_paused(&queue, true).await.unwrap();
    let mut numbers = BTreeSet::new();
    for prefetch in [4, 2].into_iter().cycle() {
        consumer.set_prefetch(prefetch);
        let mut held = Vec::new();
        let came = consumer.next(&mut held, 10);
        if tokio::time::timeout(PAUSE_IS_SEEN, came).await.is_err() {
            break;
        }
        numbers.extend(held.iter().map(number));
        settle(held).await;
    }
    await_depth(&*broker, &queue, |depth| {
        depth.ready == u64::from(COUNT) - numbers.len() as u64
    })
    .await;
    assert!(numbers.len() < COUNT as usize, "it was never paused");
    operator.set_paused(&queue, false).await.unwrap();
    consumer.set_prefetch(500);
    while numbers.len() < COUNT as usize {
        let mut held = Vec::new();
        tokio::time::timeout(PATIENCE, consumer.next(&mut held, 500))
            .await
            .expect("what is left comes");
        numbers.extend(held.iter().map(number));
        settle(held).await;
    }
    consumer.stop().await;
}
