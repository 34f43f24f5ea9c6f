//! Users who may not do everything.

use std::time::Duration;

use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::{Broker, BrokerError, Notice};
use scutwork::name::QueueName;

use super::{Notices, connect, dead, done, fill, message, next, options, queue, retry};
use crate::support::program::Place;
use crate::support::rabbitmq::Node;

/// Makes a user with these rights: to configure, to write, to read.
fn user(node: &Node, name: &str, rights: [&str; 3]) -> RabbitMqOptions {
    node.control(&["add_user", name, "secret"]);
    let [configure, write, read] = rights;
    node.control(&["set_permissions", name, configure, write, read]);
    RabbitMqOptions {
        user: Some(name.to_owned()),
        password: Some("secret".to_owned()),
        ..options(&node.url())
    }
}

async fn connect_as(options: RabbitMqOptions, notices: &Notices) -> RabbitMq {
    RabbitMq::connect(options, notices.sink()).await.unwrap()
}

/// Has a user with every right use each queue once.
async fn prepare(node: &Node, queue: &QueueName) {
    let broker = connect(&node.url()).await;
    fill(&broker, queue, &["1"]).await;
    let mut consumer = broker.consume(queue, 1).await.unwrap();
    let soon = Duration::from_secs(1);
    next(&mut consumer).await.settle(retry(soon)).await.unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    broker.close().await;
}

async fn work_without_configuring(node: Node) {
    let queue = queue("given");
    prepare(&node, &queue).await;
    let notices = Notices::default();
    let broker = connect_as(user(&node, "user", ["^$", ".*", ".*"]), &notices).await;
    fill(&broker, &queue, &["1", "2"]).await;
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    let soon = Duration::from_millis(500);
    next(&mut consumer).await.settle(retry(soon)).await.unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.message.record.attempt, 2);
    again.settle(done()).await.unwrap();
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().dead, 2);

    // A delay that nobody has asked for yet needs levels that this user cannot make.
    let hour = Some(Duration::from_secs(3600));
    let refused = broker.publish(&queue, vec![message("3")], hour).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, BrokerError::Refused(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("may not configure"), "{text}");
    assert!(text.contains(".delay."), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_configure_nothing_works_on_queues_that_are_there() {
    work_without_configuring(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_configure_nothing_works_on_version_4_too() {
    work_without_configuring(Node::start_4().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_is_named() {
    let node = Node::start().await;
    let queue = queue("named");
    prepare(&node, &queue).await;

    let mute = connect_as(user(&node, "mute", ["^$", "^$", ".*"]), &Notices::default()).await;
    let refused = mute.publish(&queue, vec![message("1")], None).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("may not write to `amq.default`"), "{text}");

    let bound = user(&node, "bound", ["^$", ".*", ".*"]);
    let elsewhere: QueueName = "elsewhere".parse().unwrap();
    let bound = connect_as(bound, &Notices::default()).await;
    let text = bound.publish(&elsewhere, vec![message("1")], None).await;
    let text = text.unwrap_err().to_string();
    assert!(text.contains("may not configure `elsewhere`"), "{text}");

    // A right that is taken away later is asked for again and again.
    let notices = Notices::default();
    let later = connect_as(user(&node, "later", ["^$", ".*", ".*"]), &notices).await;
    let mut consumer = later.consume(&queue, 1).await.unwrap();
    node.control(&["set_permissions", "later", "^$", ".*", "^$"]);
    node.control(&["close_all_connections", "a test"]);
    let unread = format!("may not read `{queue}`");
    let told =
        |notice: &Notice| matches!(notice, Notice::Disconnected(_, why) if why.contains(&unread));
    notices.wait_for(told).await;
    node.control(&["set_permissions", "later", "^$", ".*", ".*"]);
    fill(&later, &queue, &["2"]).await;
    next(&mut consumer).await.settle(done()).await.unwrap();

    // At the start it is final.
    user(&node, "deaf", ["^$", ".*", "^$"]);
    let url = node.url().replace("amqp://", "amqp://deaf:secret@");
    let name = queue.to_string();
    Place::new()
        .run(&["worker", "--broker", &url, "--queue", &name])
        .exits(69)
        .says(&[&format!("may not read `{queue}`"), "scutwork doctor"]);
}
