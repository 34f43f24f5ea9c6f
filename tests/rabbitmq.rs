//! What only RabbitMQ can do or get wrong.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions, SettlementMode};
use scutwork::broker::{
    Broker, BrokerError, Consumer, Delivery, Message, Notice, NoticeSink, Record, ReplyTo,
    SettleError,
};
use scutwork::name::QueueName;
use scutwork::settlement::{DeadLetter, Reply, ReplyKind, Settlement};
use tokio::time::timeout;

use crate::support::rabbitmq::{Node, shared_url};

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Notices as they came.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<Notice>>>, Arc<tokio::sync::Notify>);

impl Notices {
    fn sink(&self) -> NoticeSink {
        let notices = self.clone();
        Arc::new(move |notice| {
            notices.0.lock().unwrap().push(notice);
            notices.1.notify_one();
        })
    }

    async fn wait_for(&self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        let found = async {
            loop {
                let told = self.1.notified();
                if let Some(found) = self.0.lock().unwrap().iter().find(|notice| wanted(notice)) {
                    return found.clone();
                }
                told.await;
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }
}

fn options(url: &str) -> RabbitMqOptions {
    RabbitMqOptions {
        urls: vec![url.to_owned()],
        user: None,
        password: None,
        authorities: None,
        connection_name: "test".to_owned(),
        settlement: SettlementMode::Standard,
    }
}

async fn connect(url: &str) -> RabbitMq {
    RabbitMq::connect(options(url), Notices::default().sink())
        .await
        .unwrap()
}

async fn refusal(options: RabbitMqOptions) -> BrokerError {
    match RabbitMq::connect(options, Notices::default().sink()).await {
        Ok(_) => panic!("the broker took us"),
        Err(error) => error,
    }
}

fn queue(test: &str) -> QueueName {
    format!("{test}-{}", fastrand::u64(..)).parse().unwrap()
}

fn message(body: impl Into<Vec<u8>>) -> Message {
    Message {
        id: Some(scutwork::task::new_id()),
        body: body.into().into(),
        ..Message::default()
    }
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let mut deliveries = Vec::new();
    timeout(PATIENCE, consumer.next(&mut deliveries, 1))
        .await
        .expect("no delivery came");
    deliveries.pop().expect("the consumer was stopped")
}

fn reply(kind: ReplyKind) -> Reply {
    Reply {
        kind,
        task: "t".into(),
        attempt: 1,
        content_type: None,
        body: b"output".to_vec().into(),
    }
}

fn done() -> Settlement {
    Settlement::Done {
        reply: reply(ReplyKind::Done),
    }
}

fn retry(after: Duration) -> Settlement {
    Settlement::Retry {
        after,
        record: Record {
            attempt: 2,
            ..Record::default()
        },
        reply: reply(ReplyKind::Retry),
    }
}

fn dead() -> Settlement {
    Settlement::Dead {
        letter: DeadLetter {
            reason: "rejected".into(),
            code: Some("no-such-file".into()),
            error: "x".repeat(10_000),
            attempts: 1,
            plugin: Some("thumb".into()),
            digest: None,
            worker: "w1".into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
        },
        reply: reply(ReplyKind::Dead),
    }
}

/// A client that knows nothing of scutwork.
async fn stranger(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments
}

async fn declare(channel: &Channel, queue: &str, durable: bool, arguments: FieldTable) {
    let options = QueueDeclareOptions {
        durable,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .unwrap();
}

async fn publish(channel: &Channel, queue: &QueueName, properties: BasicProperties, body: &[u8]) {
    let options = BasicPublishOptions::default();
    let queue = queue.as_str().into();
    let sent = channel.basic_publish("".into(), queue, options, body, properties);
    sent.await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_from_a_producer_to_a_worker_and_is_gone_when_done() {
    let broker = connect(&shared_url()).await;
    let queue = queue("round");
    let sent = Message {
        plugin: Some("thumb".into()),
        content_type: Some("image/png".into()),
        headers: vec![("traceparent".into(), "00-1".into())],
        priority: Some(3),
        ..message("payload")
    };
    broker
        .publish(&queue, vec![sent.clone()], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message, sent);
    assert_eq!(delivery.crashes, 0);
    delivery.settle(done()).await.unwrap();
    consumer.stop().await;
    broker.close().await;
    let broker = connect(&shared_url()).await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_is_due_in_time() {
    let broker = connect(&shared_url()).await;
    let queue = queue("due");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    // Made beforehand, so that the making is not measured.
    let first = Duration::from_millis(250);
    broker
        .publish(&queue, vec![message("0")], Some(first))
        .await
        .unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    for wait in [Duration::from_secs(1), Duration::from_secs(3)] {
        broker
            .publish(&queue, vec![message("1")], Some(wait))
            .await
            .unwrap();
        let since = Instant::now();
        assert_eq!(broker.depth(&queue).await.unwrap().unwrap().delayed, 1);
        let delivery = next(&mut consumer).await;
        let late = since.elapsed().abs_diff(wait);
        assert!(late < Duration::from_secs(1), "{wait:?} came {late:?} off");
        eprintln!("a delay of {wait:?} came {late:?} off");
        assert_eq!(delivery.crashes, 0);
        delivery.settle(done()).await.unwrap();
    }
}
