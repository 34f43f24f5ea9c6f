//! What only RabbitMQ can do or get wrong.

mod dead_letters;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
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
use scutwork::task::new_id;
use tokio::time::timeout;

use crate::broker_contract::{Subject, announce};
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4, version};

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
    RabbitMqOptions::new(vec![url.to_owned()])
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

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_keeps_the_message_whatever_user_and_expiration_it_had() {
    let url = shared_url();
    let broker = connect(&url).await;
    let queue = queue("retry");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let (_connection, channel) = stranger(&url).await;
    let mut headers = FieldTable::default();
    headers.insert("n".into(), AMQPValue::LongInt(7));
    headers.insert("raw".into(), AMQPValue::LongString(vec![b'a', 0xff].into()));
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![].into()));
    let properties = BasicProperties::default()
        .with_user_id("guest".into())
        .with_expiration("60000".into())
        .with_app_id("app".into())
        .with_headers(headers);
    publish(&channel, &queue, properties, b"Hello...").await;
    let mut delivery = next(&mut consumer).await;
    let expected = [("n", "7"), ("raw", "a\u{fffd}")].map(|(n, v)| (n.into(), v.into()));
    assert_eq!(delivery.message.headers, expected);
    delivery.message.id = Some("made-up".into());
    delivery
        .settle(retry(Duration::from_millis(250)))
        .await
        .unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message.record.attempt, 2);
    assert_eq!(delivery.message.id.as_deref(), Some("made-up"));
    assert_eq!(delivery.message.headers, expected);
    assert_eq!(delivery.crashes, 0);
    delivery.settle(done()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_delay_counts_no_crash_and_keeps_the_record() {
    let broker = connect(&shared_url()).await;
    let queue = queue("release");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    broker
        .publish(&queue, vec![message("1")], None)
        .await
        .unwrap();
    let record = Record {
        attempt: 3,
        parked_since: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1234)),
        on_trial: false,
    };
    let release = Settlement::Release {
        after: Duration::ZERO,
        record: record.clone(),
    };
    next(&mut consumer).await.settle(release).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.crashes, &delivery.message.record), (0, &record));
    delivery.settle(done()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_the_original_message_with_its_cause() {
    let url = shared_url();
    let broker = connect(&url).await;
    let queue = queue("grave");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let sent = Message {
        headers: vec![("k".into(), "v".into())],
        ..message("payload")
    };
    broker
        .publish(&queue, vec![sent.clone()], None)
        .await
        .unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().dead, 1);
    let (_connection, channel) = stranger(&url).await;
    let grave = format!("{queue}.dead");
    let got = channel.basic_get(grave.as_str().into(), BasicGetOptions::default());
    let letter = got.await.unwrap().unwrap().delivery;
    assert_eq!(letter.data, b"payload");
    let id = letter.properties.message_id().as_ref();
    assert_eq!(id.map(ToString::to_string), sent.id);
    let headers = letter.properties.headers().clone().unwrap();
    let text = |name: &str| match &headers.inner()[name] {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(text("k"), "v");
    assert_eq!(text("scutwork-dead-reason"), "rejected");
    assert_eq!(text("scutwork-dead-code"), "no-such-file");
    assert_eq!(text("scutwork-dead-attempts"), "1");
    assert_eq!(text("scutwork-dead-plugin"), "thumb");
    assert_eq!(text("scutwork-dead-worker"), "w1");
    assert_eq!(text("scutwork-dead-at"), "1234");
    assert_eq!(text("scutwork-dead-queue"), queue.as_str());
    assert_eq!(text("scutwork-dead-error").len(), 4096);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_exists_with_other_arguments_is_taken_as_it_is() {
    let url = shared_url();
    let (_connection, channel) = stranger(&url).await;
    let queue = queue("hello");
    declare(&channel, queue.as_str(), false, FieldTable::default()).await;
    publish(&channel, &queue, BasicProperties::default(), b"Hello...").await;
    let broker = connect(&url).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let soon = Duration::from_millis(250);
    next(&mut consumer).await.settle(retry(soon)).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(&delivery.message.body[..], b"Hello...");
    assert_eq!(delivery.message.record.attempt, 2);
    delivery.settle(done()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_may_declare_our_queue_as_the_tutorial_does() {
    let url = shared_url();
    let broker = connect(&url).await;
    let queue = queue("task_queue");
    let _consumer = broker.consume(&queue, 10).await.unwrap();
    let (_connection, channel) = stranger(&url).await;
    declare(&channel, queue.as_str(), true, quorum()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_made_again_with_its_delays() {
    let url = shared_url();
    let notices = Notices::default();
    let broker = RabbitMq::connect(options(&url), notices.sink())
        .await
        .unwrap();
    let queue = queue("deleted");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let soon = Some(Duration::from_secs(2));
    broker
        .publish(&queue, vec![message("late")], soon)
        .await
        .unwrap();
    let (_connection, channel) = stranger(&url).await;
    let name = queue.as_str().into();
    channel
        .queue_delete(name, QueueDeleteOptions::default())
        .await
        .unwrap();
    let told =
        |notice: &Notice| matches!(notice, Notice::Disconnected(text) if text.contains("deleted"));
    notices.wait_for(told).await;
    broker
        .publish(&queue, vec![message("early")], None)
        .await
        .unwrap();
    for body in ["early", "late"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(&delivery.message.body[..], body.as_bytes());
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
async fn a_message_that_cannot_be_settled_is_held_before_the_broker_would_drop_it() {
    for url in [shared_url(), shared_url_of_4()] {
        let (_connection, channel) = stranger(&url).await;
        let queue = queue("full");
        let mut full = quorum();
        full.insert("x-max-length".into(), AMQPValue::LongInt(1));
        full.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        declare(&channel, queue.as_str(), true, full).await;
        // The limit is soft: two fit.
        for body in [b"0", b"1"] {
            publish(&channel, &queue, BasicProperties::default(), body).await;
        }
        let broker = connect(&url).await;
        let mut consumer = broker.consume(&queue, 1).await.unwrap();
        let release = || Settlement::Release {
            after: Duration::ZERO,
            record: Record::default(),
        };
        // No copy has room beside the other message, so what is released goes back by itself.
        let mut held = None;
        for _ in 0..50 {
            let delivery = next(&mut consumer).await;
            let body = delivery.message.body.clone();
            let mut settling = tokio::spawn(delivery.settle(release()));
            match timeout(Duration::from_secs(3), &mut settling).await {
                Ok(settled) => settled.unwrap().unwrap(),
                Err(_) => {
                    held = Some((body, settling));
                    break;
                }
            }
        }
        let (body, settling) = held.expect("in the end the message is held");
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
        assert_ne!(got.await.unwrap().unwrap().delivery.data, &body[..]);
        timeout(PATIENCE, settling).await.unwrap().unwrap().unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!((&delivery.message.body, delivery.crashes), (&body, 0));
        delivery.settle(done()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn natively_a_retry_is_a_requeue_and_a_reject_is_the_queues_own_business() {
    let url = shared_url();
    let native = RabbitMqOptions {
        settlement: SettlementMode::Native,
        ..options(&url)
    };
    let broker = RabbitMq::connect(native, Notices::default().sink())
        .await
        .unwrap();
    let queue = queue("native");
    broker
        .publish(&queue, vec![message("1")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    next(&mut consumer)
        .await
        .settle(retry(Duration::from_secs(9)))
        .await
        .unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.crashes, again.message.record.attempt), (1, 1));
    again.settle(dead()).await.unwrap();
    consumer.stop().await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_take_us_is_told_in_one_sentence() {
    let url = shared_url();
    let host = url.rsplit(['/', '@']).next().unwrap();
    let cases = [
        (format!("amqp://guest:wrong@{host}"), true, "password"),
        (
            format!("amqp://{host}/nowhere"),
            true,
            "no virtual host `nowhere`",
        ),
        ("amqp://127.0.0.1:1".to_owned(), false, "nothing listens"),
        ("http://localhost".to_owned(), true, "amqp and amqps"),
    ];
    for (url, is_refused, says) in cases {
        let error = refusal(options(&url)).await;
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains("wrong"), "{text}");
        assert_eq!(
            matches!(error, BrokerError::Refused(_)),
            is_refused,
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_broker_of_several_that_answers_is_taken() {
    let mut several = options(&shared_url());
    several.urls.insert(0, "amqp://127.0.0.1:1".to_owned());
    let broker = RabbitMq::connect(several, Notices::default().sink()).await;
    assert!(broker.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_restarts_or_is_killed() {
    let mut node = Node::start().await;
    let notices = Notices::default();
    let broker = RabbitMq::connect(options(&node.url()), notices.sink())
        .await
        .unwrap();
    let queue = queue("survive");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    // Delayed over both the end of the broker and its start.
    let later = Some(Duration::from_secs(3));
    broker
        .publish(&queue, vec![message("delayed")], later)
        .await
        .unwrap();
    // A node that is killed right after a quorum queue was made may lose the queue.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent: Vec<Message> = (0..100).map(|n| message(n.to_string())).collect();
    let mut owed: BTreeSet<_> = sent.iter().map(|message| message.id.clone()).collect();
    broker.publish(&queue, sent, None).await.unwrap();
    let stale = next(&mut consumer).await;
    node.kill().await;
    let lost = |notice: &Notice| matches!(notice, Notice::Disconnected(_));
    notices.wait_for(lost).await;
    assert!(!stale.hold.is_live());
    assert!(matches!(stale.settle(done()).await, Err(SettleError::Lost)));
    node.restart().await;
    let mut delayed = false;
    while !owed.is_empty() || !delayed {
        let delivery = next(&mut consumer).await;
        delayed |= &delivery.message.body[..] == b"delayed";
        let id = delivery.message.id.clone();
        if delivery.settle(done()).await.is_ok() {
            owed.remove(&id);
        }
        if owed.len() == 50 {
            node.stop().await;
            node.restart().await;
        }
    }
    consumer.stop().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_broker_is_trusted_by_its_own_authority_alone() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let port = crate::support::rabbitmq::three_free_ports();
    let settings = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
        file("authority.pem", authority_certificate.pem()),
        file("certificate.pem", certificate.pem()),
        file("key.pem", key.serialize_pem()),
    );
    let _node = Node::start_with_port(&settings, port).await;
    let encrypted = options(&format!("amqps://127.0.0.1:{port}"));
    let trusting = RabbitMqOptions {
        authorities: Some(authority_certificate.pem()),
        ..encrypted.clone()
    };
    let broker = RabbitMq::connect(trusting, Notices::default().sink())
        .await
        .unwrap();
    let queue = queue("tls");
    broker
        .publish(&queue, vec![message("1")], None)
        .await
        .unwrap();
    let error = refusal(encrypted).await;
    assert!(error.to_string().contains("CA certificate"), "{error}");
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
