//! What travels with a message, from a producer to a worker, a retry or a dead letter.

use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable};
use scutwork::broker::{Broker, Message, Record};
use scutwork::settlement::Settlement;

use super::{connect, dead, done, message, next, publish, queue, retry, stranger};
use crate::support::rabbitmq::shared_url;

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
