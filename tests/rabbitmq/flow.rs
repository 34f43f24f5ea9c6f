//! Tasks in time, in great numbers, and given back at the end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use scutwork::broker::{Broker, Message};
use scutwork::name::QueueName;
use tokio::time::timeout;

use super::{PATIENCE, connect, done, message, next, queue, stranger};
use crate::support::rabbitmq::shared_url;
use crate::support::waiting::await_depth;

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_is_counted_and_never_early() {
    let broker = connect(&shared_url()).await;
    let queue = queue("due");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    // Every level that is needed is made beforehand, so that the making is not measured.
    let first = Duration::from_secs(3);
    broker
        .publish(&queue, vec![message("0")], Some(first))
        .await
        .unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    for wait in [Duration::from_secs(1), Duration::from_secs(3)] {
        let since = Instant::now();
        broker
            .publish(&queue, vec![message("1")], Some(wait))
            .await
            .unwrap();
        // For a moment it is in no queue, when it is looked at.
        await_depth(&broker, &queue, |depth| depth.delayed == 1).await;
        let delivery = next(&mut consumer).await;
        let waited = since.elapsed();
        // A message counts in whole milliseconds.
        let least = wait - Duration::from_millis(1);
        assert!(waited >= least, "{waited:?} is too early for {wait:?}");
        eprintln!("a delay of {wait:?} took {waited:?}");
        assert_eq!(delivery.crashes, 0);
        delivery.settle(done()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_handed_out_goes_back_when_a_consumer_stops() {
    let broker = connect(&shared_url()).await;
    let queue = queue("stop");
    let sent: Vec<Message> = (0..10).map(|n| message(n.to_string())).collect();
    broker.publish(&queue, sent, None).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let held = next(&mut consumer).await;
    consumer.stop().await;
    let mut none = Vec::new();
    consumer.next(&mut none, 1).await;
    assert!(none.is_empty());
    held.settle(done()).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let mut left = BTreeSet::new();
    for _ in 0..9 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.crashes, 0);
        left.insert(delivery.message.id.clone());
        delivery.settle(done()).await.unwrap();
    }
    assert_eq!(left.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_tasks_are_acked_in_batches_and_none_is_left() {
    const TASKS: usize = 20_000;
    let url = shared_url();
    let broker = connect(&url).await;
    let queue = queue("many");
    let fill = || (0..TASKS).map(|_| message(vec![0; 20])).collect();
    broker.publish(&queue, fill(), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 1000).await.unwrap();
    let since = Instant::now();
    let mut settling = tokio::task::JoinSet::new();
    let mut deliveries = Vec::new();
    while settling.len() < TASKS {
        timeout(PATIENCE, consumer.next(&mut deliveries, 100))
            .await
            .unwrap();
        for delivery in deliveries.drain(..) {
            settling.spawn(delivery.settle(done()));
        }
    }
    while let Some(settled) = settling.join_next().await {
        settled.unwrap().unwrap();
    }
    let ours = since.elapsed();
    consumer.stop().await;
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().ready, 0);

    broker.publish(&queue, fill(), None).await.unwrap();
    let bare = bare_consume(&url, &queue, TASKS).await;
    let rate = |took: Duration| TASKS as f64 / took.as_secs_f64();
    eprintln!(
        "settled {:.0}/s; bare lapin {:.0}/s",
        rate(ours),
        rate(bare)
    );
}

/// What the client library alone takes, acking many at once.
async fn bare_consume(url: &str, queue: &QueueName, tasks: usize) -> Duration {
    let (_connection, channel) = stranger(url).await;
    channel
        .basic_qos(1000, BasicQosOptions::default())
        .await
        .unwrap();
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(
        queue.as_str().into(),
        "".into(),
        options,
        FieldTable::default(),
    );
    let mut stream = consuming.await.unwrap();
    let since = Instant::now();
    for count in 1..=tasks {
        let delivery = stream.next().await.unwrap().unwrap();
        if count % 100 == 0 || count == tasks {
            let multiple = BasicAckOptions { multiple: true };
            assert!(delivery.ack(multiple).await.unwrap());
        }
    }
    since.elapsed()
}
