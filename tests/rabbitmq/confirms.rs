//! Confirms: what the broker says of one message is said of no other, however many are under way.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::{BasicGetOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use scutwork::broker::rabbitmq::RabbitMq;
use scutwork::broker::{Broker, Notice};
use scutwork::name::QueueName;
use tokio::time::timeout;

use super::{
    Notices, PATIENCE, connect, connect_and_hear, declare, fill, message, queue, stranger,
};
use crate::support::rabbitmq::shared_url;

/// How many messages are under way at once to each of two queues.
const COUNT: usize = 500;

/// Publishes each message alone and all of them at once, from every thread that there is. Gives how many
/// the broker was said to have.
async fn publish_at_once(broker: &Arc<RabbitMq>, queues: [&QueueName; 2]) -> [usize; 2] {
    let publish = |queue: &QueueName, number: usize| {
        let (broker, queue) = (broker.clone(), queue.clone());
        tokio::spawn(async move {
            let message = message(number.to_string());
            broker.publish(&queue, vec![message], None).await.is_ok()
        })
    };
    let published = (0..COUNT).map(|number| queues.map(|queue| publish(queue, number)));
    let published: Vec<_> = published.collect();
    let mut counts = [0; 2];
    for pair in published {
        for (count, is_published) in counts.iter_mut().zip(join_all(pair).await) {
            *count += usize::from(is_published.unwrap());
        }
    }
    counts
}

/// The bodies of all that is in a queue.
async fn bodies(channel: &Channel, queue: &QueueName) -> Vec<String> {
    let mut bodies = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(got) = channel
        .basic_get(queue.as_str().into(), options)
        .await
        .unwrap()
    {
        bodies.push(String::from_utf8(got.delivery.data).unwrap());
    }
    bodies
}

/// The arguments of a queue that refuses a second message.
fn room_for_one() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let refuse = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), refuse);
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_while_much_is_published_loses_nothing() {
    let broker = Arc::new(connect(&shared_url()).await);
    let (_connection, channel) = stranger(&shared_url()).await;
    let (deleted, kept) = (queue("deleted"), queue("kept"));
    for queue in [&deleted, &kept] {
        fill(&broker, queue, &["first"]).await;
    }
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete(deleted.as_str().into(), options)
        .await
        .unwrap();
    let counts = publish_at_once(&broker, [&deleted, &kept]).await;
    assert_eq!(counts, [COUNT, COUNT]);
    let all: BTreeSet<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let there: BTreeSet<String> = bodies(&channel, &deleted).await.into_iter().collect();
    let lost: Vec<_> = all.difference(&there).collect();
    assert!(lost.is_empty(), "{lost:?} are lost");
    let there = bodies(&channel, &kept).await;
    assert_eq!(there.len(), 1 + COUNT, "some came to the other queue twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_takes_nothing_says_so_of_its_own_messages_only() {
    let broker = Arc::new(connect(&shared_url()).await);
    let (_connection, channel) = stranger(&shared_url()).await;
    let (full, kept) = (queue("full"), queue("kept"));
    declare(&channel, full.as_str(), true, room_for_one()).await;
    for queue in [&full, &kept] {
        fill(&broker, queue, &["first"]).await;
    }
    let counts = publish_at_once(&broker, [&full, &kept]).await;
    assert_eq!(counts, [0, COUNT]);
    assert_eq!(bodies(&channel, &full).await, ["first"]);
    let there = bodies(&channel, &kept).await;
    assert_eq!(there.len(), 1 + COUNT, "some came to the other queue twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_takes_nothing_for_some_seconds_gets_its_message_then() {
    let notices = Notices::default();
    let broker = connect_and_hear(&shared_url(), &notices).await;
    let (_connection, channel) = stranger(&shared_url()).await;
    let queue = queue("room");
    declare(&channel, queue.as_str(), true, room_for_one()).await;
    fill(&broker, &queue, &["first"]).await;
    let mut publishing = broker.publish(&queue, vec![message("second")], None);
    let is_told =
        |notice: &Notice| matches!(notice, Notice::Warning(text) if text.contains(queue.as_str()));
    // It is told after more seconds than a queue of a busy broker needs that is being made.
    tokio::select! {
        _ = notices.wait_for(is_told) => {}
        published = &mut publishing => panic!("{published:?}"),
    }
    assert_eq!(bodies(&channel, &queue).await, ["first"]);
    timeout(PATIENCE, publishing).await.unwrap().unwrap();
    assert_eq!(bodies(&channel, &queue).await, ["second"]);
    assert_eq!(notices.count(is_told), 1);
}
