//! Replies: to whom they go, and what becomes of one that cannot be told at once.

use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicGetOptions;
use lapin::types::FieldTable;
use scutwork::broker::rabbitmq::RabbitMq;
use scutwork::broker::{Broker, Message, Notice, ReplyTo};
use tokio::time::timeout;

use super::{
    Notices, PATIENCE, connect, connect_and_hear, dead, declare, done, message, next, options,
    queue, quorum, retry, stranger,
};
use crate::support::network::Network;
use crate::support::rabbitmq::{Cluster, shared_url};

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_reaches_its_requester_and_retries_only_one_that_asks() {
    let broker = connect(&shared_url()).await;
    let queue = queue("reply");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let mut replies = broker.replies().await.unwrap();
    let asking = |id: &str, notify| Message {
        reply_to: Some(ReplyTo {
            address: replies.address().to_owned(),
            correlation_id: Some(id.to_owned()),
            notify,
        }),
        ..message(id)
    };
    let requests = vec![asking("quiet", false), asking("curious", true)];
    replies.publish(&queue, requests, None).await.unwrap();
    for _ in 0..2 {
        let soon = Duration::from_millis(250);
        next(&mut consumer).await.settle(retry(soon)).await.unwrap();
    }
    for _ in 0..2 {
        next(&mut consumer).await.settle(done()).await.unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        let (id, reply) = timeout(PATIENCE, replies.next()).await.unwrap().unwrap();
        heard.push((id.unwrap(), reply.kind.as_str()));
    }
    heard.sort();
    let expected = [("curious", "done"), ("curious", "retry"), ("quiet", "done")];
    assert_eq!(heard, expected.map(|(id, kind)| (id.to_owned(), kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_requester_that_is_gone_warns_and_the_task_is_done() {
    let notices = Notices::default();
    let broker = RabbitMq::connect(options(&shared_url()), notices.sink())
        .await
        .unwrap();
    let queue = queue("gone");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let request = Message {
        reply_to: Some(ReplyTo {
            address: format!("{queue}-nobody"),
            correlation_id: None,
            notify: false,
        }),
        ..message("1")
    };
    broker.publish(&queue, vec![request], None).await.unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    let nobody =
        |notice: &Notice| matches!(notice, Notice::Warning(text) if text.contains("nobody"));
    notices.wait_for(nobody).await;
    consumer.stop().await;
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().ready, 0);
}

fn asks_at(address: &str) -> Message {
    Message {
        reply_to: Some(ReplyTo {
            address: address.to_owned(),
            correlation_id: None,
            notify: false,
        }),
        ..message("1")
    }
}

async fn takes_a_reply(channel: &Channel, address: &str) {
    let got = channel.basic_get(address.into(), BasicGetOptions { no_ack: true });
    let reply = got.await.unwrap().expect("a reply");
    assert_eq!(reply.delivery.data, b"output");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_queue_at_which_the_broker_fails_is_told_when_it_does_not() {
    const TIMES: u32 = 4;
    let url = shared_url();
    let network = Network::to(&url);
    let queue = queue("failing");
    let answers = format!("{queue}-answers");
    let (_connection, channel) = stranger(&url).await;
    declare(&channel, &answers, true, quorum()).await;
    let broker = connect(&network.url("")).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let asking = vec![asks_at(&answers)];
    broker.publish(&queue, asking, None).await.unwrap();
    network.crash_at(&answers, TIMES);
    next(&mut consumer).await.settle(done()).await.unwrap();
    assert_eq!(network.crashes_left(), 0);
    takes_a_reply(&channel, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_queue_whose_node_is_down_is_told_when_it_is_up() {
    let mut cluster = Cluster::start(2).await;
    let urls = cluster.urls();
    let queue = queue("down");
    let answers = format!("{queue}-answers");
    // A durable classic queue is on the node that it was declared at, and on no other.
    let (_first, channel) = stranger(&urls[0]).await;
    declare(&channel, &answers, true, FieldTable::default()).await;
    let (_second, channel) = stranger(&urls[1]).await;
    declare(&channel, queue.as_str(), true, FieldTable::default()).await;
    let notices = Notices::default();
    let broker = RabbitMq::connect(options(&urls[1]), notices.sink())
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let asking = vec![asks_at(&answers)];
    broker.publish(&queue, asking, None).await.unwrap();
    cluster.nodes()[0].kill().await;
    let settled = async {
        // Where the node takes long to come, the task goes back to its queue and comes again.
        while next(&mut consumer).await.settle(done()).await.is_err() {}
    };
    let ((), ()) = tokio::join!(settled, cluster.nodes()[0].restart());
    let (_first, channel) = stranger(&urls[0]).await;
    takes_a_reply(&channel, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_returns_of_one_message_says_nothing_of_another() {
    const COUNT: usize = 60;
    let notices = Notices::default();
    let broker = connect_and_hear(&shared_url(), &notices).await;
    let queue = queue("returned");
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    let mut replies = broker.replies().await.unwrap();
    let nobody = format!("{queue}-nobody");
    // Half of the requesters are there, and half are gone.
    let requests = (0..COUNT).map(|number| match number % 2 {
        0 => asks_at(replies.address()),
        _ => asks_at(&nobody),
    });
    let requests = requests.collect();
    replies.publish(&queue, requests, None).await.unwrap();
    let mut held = Vec::new();
    while held.len() < COUNT {
        held.push(next(&mut consumer).await);
    }
    let settling = held.into_iter().map(|one| one.settle(dead()));
    for settled in futures_util::future::join_all(settling).await {
        settled.unwrap();
    }
    for _ in 0..COUNT / 2 {
        timeout(PATIENCE, replies.next()).await.unwrap().unwrap();
    }
    consumer.stop().await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!(depth.dead, COUNT as u64);
    let warnings = notices
        .count(|notice| matches!(notice, Notice::Warning(text) if text.contains("found nobody")));
    assert_eq!(warnings, COUNT / 2);
}
