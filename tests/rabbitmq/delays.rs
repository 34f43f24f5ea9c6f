//! Delays while the broker that holds them is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scutwork::broker::Broker;

use super::{connect, done, message, next, queue};
use crate::support::rabbitmq::Node;

/// What a delay may be cut short by.
fn slack(delay: Duration) -> Duration {
    Duration::from_secs(1).max(delay / 50)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delay_ends_and_none_early_though_the_broker_is_killed_in_between() {
    let mut node = Node::start().await;
    let broker = connect(&node.url()).await;
    let queue = queue("delays");
    // A long one makes all the levels, before anything can be killed that was only just made.
    let long = Some(Duration::from_secs(120));
    broker
        .publish(&queue, vec![message("never")], long)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // They pass one queue or several, and some are between two when the broker is killed.
    let mut owed = BTreeMap::new();
    let began = Instant::now();
    for number in 0..30_u32 {
        let delay = Duration::from_millis(1000 + 250 * u64::from(number));
        let name = number.to_string();
        owed.insert(name.clone(), delay);
        broker
            .publish(&queue, vec![message(name)], Some(delay))
            .await
            .unwrap();
    }
    let published = Instant::now();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1500))).await;
        node.kill().await;
        node.restart().await;
    }
    let up = Instant::now();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let mut latest = Duration::ZERO;
    while !owed.is_empty() {
        let delivery = next(&mut consumer).await;
        let name = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        // At least once: one that the kill caught between two queues may be in both.
        if let Some(delay) = owed.remove(&name) {
            let waited = began.elapsed();
            assert!(waited + slack(delay) >= delay, "{waited:?} of {delay:?}");
            let late = published.elapsed().saturating_sub(delay);
            latest = latest.max(late.min(up.elapsed()));
        }
        delivery.settle(done()).await.unwrap();
    }
    // By a connection that has not learnt to be patient with this broker.
    let other = connect(&node.url()).await;
    let depth = other.depth(&queue).await.unwrap().unwrap();
    other.close().await;
    assert!(depth.delayed >= 1, "{depth:?}");
    eprintln!("with the broker up again, the latest came {latest:?} late");
    consumer.stop().await;
    broker.close().await;
}
