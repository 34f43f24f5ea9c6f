//! What only RabbitMQ can do or get wrong.

mod alarms;
mod arguments;
mod confirms;
mod connections;
mod dead_letters;
mod delays;
mod flow;
mod frames;
mod long_tasks;
mod messages;
mod network;
mod policy;
mod prefetch;
mod readiness;
mod replies;
mod rights;
mod topology;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::{
    Broker, BrokerError, Consumer, Delivery, Message, Notice, NoticeSink, Record,
};
use scutwork::name::QueueName;
use scutwork::settlement::{DeadLetter, Reply, ReplyKind, Settlement};
use scutwork::task::new_id;
use tokio::time::timeout;

use crate::broker_contract::{Subject, announce};
use crate::support::rabbitmq::{shared_url, shared_url_of_4, version};

/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shared node of one major version, with queues that no other test has.
pub(crate) struct RabbitMqSubject<const MAJOR: u8> {
    url: String,
    queues: AtomicU32,
    prefix: String,
}

#[async_trait]
impl<const MAJOR: u8> Subject for RabbitMqSubject<MAJOR> {
    async fn start() -> Self {
        let (name, url) = match MAJOR {
            3 => ("RabbitMQ 3:", shared_url()),
            4 => ("RabbitMQ 4:", shared_url_of_4()),
            other => panic!("no RabbitMQ {other} is started for tests"),
        };
        let version = version(&url);
        assert!(version.starts_with(&format!("{MAJOR}.")), "{version}");
        announce(name, || version);
        RabbitMqSubject {
            url,
            queues: AtomicU32::new(0),
            prefix: format!("contract.{}", new_id()),
        }
    }

    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::new(connect(&self.url).await)
    }

    fn queue(&self) -> QueueName {
        let number = self.queues.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.prefix).parse().unwrap()
    }
}

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

    fn count(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        let notices = self.0.lock().unwrap();
        notices.iter().filter(|notice| wanted(notice)).count()
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
        match timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("not noticed; seen: {:#?}", self.0.lock().unwrap()),
        }
    }
}

fn options(url: &str) -> RabbitMqOptions {
    RabbitMqOptions::new(vec![url.to_owned()])
}

async fn connect(url: &str) -> RabbitMq {
    connect_and_hear(url, &Notices::default()).await
}

async fn connect_and_hear(url: &str, notices: &Notices) -> RabbitMq {
    RabbitMq::connect(options(url), notices.sink())
        .await
        .unwrap()
}

/// Settles what comes until all of these are done, and sees that nothing is left.
async fn finish(
    broker: &RabbitMq,
    mut consumer: Box<dyn Consumer>,
    queue: &QueueName,
    bodies: &[&str],
) {
    let mut owed: BTreeSet<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
    while !owed.is_empty() {
        let delivery = next(&mut consumer).await;
        let body = delivery.message.body.clone();
        if delivery.settle(done()).await.is_ok() {
            assert!(owed.remove(&body[..]), "{body:?} was not owed");
        }
    }
    consumer.stop().await;
    drop(consumer);
    let depth = broker.depth(queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}

async fn fill(broker: &RabbitMq, queue: &QueueName, bodies: &[&str]) {
    let messages = bodies.iter().map(|body| message(*body)).collect();
    broker.publish(queue, messages, None).await.unwrap();
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
