//! Delays that end, whatever happens to what holds them and to what moves them on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scutwork::broker::{Broker, Consumer};
use scutwork::name::QueueName;

use super::{connect, done, message, next, queue};
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4};
use crate::support::waiting::{assert_not_early, await_depth};

/// A message with so long to wait.
async fn put_off(broker: &impl Broker, queue: &QueueName, name: &str, delay: Duration) {
    broker
        .publish(queue, vec![message(name)], Some(delay))
        .await
        .unwrap();
}

/// Sees that one waits still. For a moment it is in no queue, when it is looked at.
async fn still_delayed(broker: &impl Broker, queue: &QueueName) {
    await_depth(broker, queue, |depth| depth.delayed > 0).await;
}

/// Takes what comes next, done, and gives its text.
async fn take(consumer: &mut Box<dyn Consumer>) -> String {
    let delivery = next(consumer).await;
    let name = String::from_utf8(delivery.message.body.to_vec()).unwrap();
    delivery.settle(done()).await.unwrap();
    name
}

async fn kill_in_between(mut node: Node) {
    let broker = connect(&node.url()).await;
    let queue = queue("delays");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    // A long one makes all the levels. How late the others come is told and not judged: it is the
    // machine's too. What fails here is one that waits for longer than a test's patience.
    put_off(&broker, &queue, "never", Duration::from_secs(600)).await;
    // Some pass one level and some several, and some are between two when the broker is killed.
    let mut owed = BTreeMap::new();
    for number in 0..60_u32 {
        let delay = Duration::from_millis(1000 + 500 * u64::from(number));
        let name = number.to_string();
        // A slow machine may take its time to confirm, and the delay runs meanwhile.
        let since = Instant::now();
        put_off(&broker, &queue, &name, delay).await;
        owed.insert(name, (since, delay));
    }
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1500))).await;
        node.kill().await;
        node.restart().await;
    }
    let up = Instant::now();
    let mut latest = Duration::ZERO;
    while !owed.is_empty() {
        let delivery = next(&mut consumer).await;
        let name = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        // At least once: one that the kill caught between two queues may be in both.
        if let Some((since, delay)) = owed.remove(&name) {
            assert_not_early(since, delay);
            latest = latest.max((since + delay).max(up).elapsed());
        }
        // One of before a kill is delivered again.
        let _ = delivery.settle(done()).await;
    }
    println!("with the broker up again, the latest came {latest:?} late");
    still_delayed(&broker, &queue).await;
    consumer.stop().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delay_ends_and_none_early_though_the_broker_is_killed_in_between() {
    kill_in_between(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delay_ends_on_version_4_though_it_is_killed_in_between() {
    kill_in_between(Node::start_4().await).await;
}

async fn none_waits_behind_a_longer_one(url: String) {
    let broker = connect(&url).await;
    let queue = queue("longer");
    // Far enough apart for a machine that has much else to do; the first makes the levels.
    let delays = [
        ("long", 90),
        ("fifth", 13),
        ("third", 7),
        ("fourth", 10),
        ("second", 4),
        ("first", 1),
    ];
    for (name, seconds) in delays {
        put_off(&broker, &queue, name, Duration::from_secs(seconds)).await;
    }
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    for expected in ["first", "second", "third", "fourth", "fifth"] {
        assert_eq!(take(&mut consumer).await, expected);
    }
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_delay_waits_behind_a_longer_one() {
    tokio::join!(
        none_waits_behind_a_longer_one(shared_url()),
        none_waits_behind_a_longer_one(shared_url_of_4())
    );
}

async fn many_at_once(url: String) {
    let broker = connect(&url).await;
    let queue = queue("many");
    let mut consumer = broker.consume(&queue, 500).await.unwrap();
    let mut owed = BTreeSet::new();
    // Like retries of what failed in the same moment, with their jitter.
    for batch in 0..20 {
        let names: Vec<String> = (0..100)
            .map(|number| (batch * 100 + number).to_string())
            .collect();
        let messages = names.iter().map(|name| message(name.as_str())).collect();
        let delay = Duration::from_millis(2700 + fastrand::u64(0..600));
        broker.publish(&queue, messages, Some(delay)).await.unwrap();
        owed.extend(names);
    }
    while !owed.is_empty() {
        let name = take(&mut consumer).await;
        assert!(owed.remove(&name), "{name} came twice");
    }
    consumer.stop().await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_delays_that_end_together_come_once_each() {
    tokio::join!(many_at_once(shared_url()), many_at_once(shared_url_of_4()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_delays_on_is_taken_over_by_another_worker() {
    let url = shared_url();
    let (first, second) = (connect(&url).await, connect(&url).await);
    let queue = queue("turn");
    let mut gone = first.consume(&queue, 1).await.unwrap();
    put_off(&first, &queue, "0", Duration::from_secs(1)).await;
    assert_eq!(take(&mut gone).await, "0");
    let mut stays = second.consume(&queue, 1).await.unwrap();
    put_off(&second, &queue, "1", Duration::from_secs(2)).await;
    gone.stop().await;
    drop(gone);
    assert_eq!(take(&mut stays).await, "1");
}
