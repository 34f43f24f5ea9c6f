//! Dead letters that are looked at again and again, in a queue of ours or of somebody else.

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use scutwork::broker::{Broker, Buried};
use scutwork::name::QueueName;
use scutwork::task::new_id;
use tokio::time::timeout;

use super::{PATIENCE, connect, dead, message, next, queue, stranger};
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4};

/// Declares a queue's dead letters as RabbitMQ 4 would by default, and puts foreign messages there.
async fn fill(queue: &QueueName, count: usize) {
    let url = shared_url();
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{queue}.dead");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(20));
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.as_str().into(), durable, arguments)
        .await
        .unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    for number in 0..count {
        let confirm = channel
            .basic_publish(
                "".into(),
                name.as_str().into(),
                BasicPublishOptions::default(),
                number.to_string().as_bytes(),
                BasicProperties::default(),
            )
            .await
            .unwrap();
        assert!(confirm.await.unwrap().is_ack());
    }
    connection.close(200, "".into()).await.unwrap();
}

async fn look(broker: &dyn Broker, queue: &QueueName) -> Vec<Buried> {
    let mut pass = broker.dead_letters(queue).await.unwrap();
    let mut all = Vec::new();
    loop {
        let page = pass.next(100).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    pass.close().await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_oftener_than_a_delivery_limit_allows_loses_nothing() {
    let queue: QueueName = format!("limited.{}", new_id()).parse().unwrap();
    fill(&queue, 5).await;
    let broker = connect(&shared_url()).await;
    for _ in 0..30 {
        let letters = look(&broker, &queue).await;
        let mut bodies: Vec<_> = letters.iter().map(|one| one.message.body.clone()).collect();
        bodies.sort_unstable();
        assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
        assert!(letters.iter().all(|one| one.cause.is_none()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_may_be_looked_at_and_put_back_again_and_again() {
    for url in [shared_url(), shared_url_of_4()] {
        let broker = connect(&url).await;
        let queue = queue("looked-at");
        broker
            .publish(&queue, vec![message("1")], None)
            .await
            .unwrap();
        let mut consumer = broker.consume(&queue, 1).await.unwrap();
        next(&mut consumer).await.settle(dead()).await.unwrap();
        let (_connection, channel) = stranger(&url).await;
        let grave = format!("{queue}.dead");
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(
            grave.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let mut letters = consuming.await.unwrap();
        for _ in 0..30 {
            let letter = timeout(PATIENCE, letters.next()).await.unwrap();
            let put_back = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            assert!(letter.unwrap().unwrap().nack(put_back).await.unwrap());
        }
    }
}

/// Has the process that leads a queue do nothing for four seconds: the broker gives zeros for its counts then.
fn hold_up(node: &Node, queue: &str) {
    let leader = format!("whereis('%2F_{queue}')");
    node.control(&[
        "eval",
        &format!("spawn(fun() -> erlang:suspend_process({leader}), timer:sleep(4000) end)."),
    ]);
}

async fn look_while_it_is_busy(node: Node) {
    const COUNT: usize = 40;
    let broker = connect(&node.url()).await;
    let queue = queue("busy");
    let messages = (0..COUNT).map(|number| message(number.to_string()));
    broker
        .publish(&queue, messages.collect(), None)
        .await
        .unwrap();
    hold_up(&node, queue.as_str());
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!(depth.ready, 40);

    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    for _ in 0..COUNT {
        next(&mut consumer).await.settle(dead()).await.unwrap();
    }
    consumer.stop().await;
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let mut read = pass.next(100).await.unwrap().len();
    assert!((1..COUNT).contains(&read), "{read} on the first page");
    hold_up(&node, &format!("{queue}.dead"));
    loop {
        match pass.next(100).await.unwrap().len() {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!(read, COUNT);
    pass.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_has_no_time_to_be_counted_is_not_taken_for_empty() {
    look_while_it_is_busy(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_version_4_that_has_no_time_to_be_counted_is_not_taken_for_empty() {
    look_while_it_is_busy(Node::start_4().await).await;
}
