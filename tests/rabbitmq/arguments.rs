//! The arguments of queues: those that we make, and what becomes of tasks in queues that others made
//! otherwise.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection};
use scutwork::broker::Broker;
use scutwork::name::QueueName;

use super::{
    connect, dead, declare, done, fill, message, next, publish, queue, quorum, retry, stranger,
};
use crate::support::rabbitmq::{shared_url, shared_url_of_4};

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// Whether a queue is durable and has these arguments: the broker refuses a declaration with others.
async fn has(connection: &Connection, name: &str, arguments: FieldTable) -> bool {
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match channel.queue_declare(name.into(), options, arguments).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("PRECONDITION_FAILED"), "{error}");
            false
        }
    }
}

async fn is_there(connection: &Connection, name: &str) -> bool {
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(name.into(), options, FieldTable::default());
    asked.await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_queue_is_durable_a_quorum_queue_and_says_what_it_promises() {
    for url in [shared_url(), shared_url_of_4()] {
        let broker = connect(&url).await;
        let queue = queue("made");
        fill(&broker, &queue, &["1", "2"]).await;
        let mut consumer = broker.consume(&queue, 2).await.unwrap();
        next(&mut consumer).await.settle(dead()).await.unwrap();
        // Enters at the third level, so that there are three.
        let second = Duration::from_secs(1);
        let late = next(&mut consumer).await;
        late.settle(retry(second)).await.unwrap();
        let (connection, _channel) = stranger(&url).await;

        assert!(has(&connection, queue.as_str(), quorum()).await);
        assert!(has(&connection, &format!("{queue}.paused"), quorum()).await);
        let mut kept = quorum();
        kept.insert("x-delivery-limit".into(), number(1_000_000_000));
        let grave = format!("{queue}.dead");
        assert!(has(&connection, &grave, kept.clone()).await);
        assert!(!has(&connection, &grave, quorum()).await);
        for level in 0..3 {
            let name = format!("{queue}.delay.{level}");
            assert!(has(&connection, &name, kept.clone()).await, "{name}");
        }
        assert!(!is_there(&connection, &format!("{queue}.delay.3")).await);
    }
}

/// Arguments that owners of queues give them.
fn foreign() -> Vec<(&'static str, FieldTable)> {
    let classic = || text("classic");
    vec![
        ("none", FieldTable::default()),
        ("classic", table(&[("x-queue-type", classic())])),
        ("ttl", table(&[("x-message-ttl", number(600_000))])),
        ("priorities", table(&[("x-max-priority", number(5))])),
        (
            "bounded",
            table(&[
                ("x-queue-type", text("quorum")),
                ("x-max-length", number(1000)),
                ("x-overflow", text("reject-publish")),
            ]),
        ),
        (
            "single",
            table(&[
                ("x-queue-type", text("quorum")),
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ]),
        ),
        (
            "policed",
            table(&[
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", number(5)),
                ("x-dead-letter-exchange", text("amq.fanout")),
            ]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_its_owners_arguments_is_served_as_it_is() {
    for url in [shared_url(), shared_url_of_4()] {
        let broker = connect(&url).await;
        let (connection, channel) = stranger(&url).await;
        for (kind, arguments) in foreign() {
            let queue = queue(kind);
            declare(&channel, queue.as_str(), true, arguments.clone()).await;
            publish(&channel, &queue, BasicProperties::default(), b"1").await;
            let mut consumer = broker.consume(&queue, 2).await.unwrap();
            fill(&broker, &queue, &["2"]).await;
            let soon = Duration::from_millis(250);
            next(&mut consumer).await.settle(retry(soon)).await.unwrap();
            next(&mut consumer).await.settle(dead()).await.unwrap();
            let again = next(&mut consumer).await;
            assert_eq!(again.message.record.attempt, 2, "{kind}");
            again.settle(done()).await.unwrap();
            consumer.stop().await;
            assert!(has(&connection, queue.as_str(), arguments).await, "{kind}");
            let depth = broker.depth(&queue).await.unwrap().unwrap();
            assert_eq!(
                (depth.ready, depth.delayed, depth.dead),
                (0, 0, 1),
                "{kind}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_says_so_and_keeps_what_it_took() {
    for url in [shared_url(), shared_url_of_4()] {
        let broker = connect(&url).await;
        let (_connection, channel) = stranger(&url).await;
        let queue = queue("brimful");
        let arguments = table(&[
            ("x-queue-type", text("quorum")),
            ("x-max-length", number(3)),
            ("x-overflow", text("reject-publish")),
        ]);
        declare(&channel, queue.as_str(), true, arguments).await;
        let mut taken = 0;
        let why = loop {
            match broker.publish(&queue, vec![message("1")], None).await {
                Ok(()) => taken += 1,
                Err(error) => break error.to_string(),
            }
            assert!(taken < 100, "the limit is soft, but not so soft");
        };
        assert!(
            why.contains(queue.as_str()) && why.contains("full"),
            "{why}"
        );
        let mut consumer = broker.consume(&queue, 10).await.unwrap();
        for _ in 0..taken {
            next(&mut consumer).await.settle(done()).await.unwrap();
        }
        fill(&broker, &queue, &["2"]).await;
        let room = next(&mut consumer).await;
        assert_eq!(&room.message.body[..], b"2");
        room.settle(done()).await.unwrap();
    }
}

/// An owner's queue, whose policy dead-letters to a queue of his.
async fn owned(url: &str, arguments: &[(&str, AMQPValue)]) -> (Connection, QueueName, String) {
    let (connection, channel) = stranger(url).await;
    let queue = queue("owned");
    let exit = format!("{queue}.exit");
    let mut all = vec![
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&exit)),
    ];
    all.extend_from_slice(arguments);
    declare(&channel, queue.as_str(), true, table(&all)).await;
    (connection, queue, exit)
}

mod native {
    use lapin::options::BasicGetOptions;
    use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions, SettlementMode};

    use super::*;
    use crate::rabbitmq::{Notices, PATIENCE, options};

    async fn connect(url: &str) -> RabbitMq {
        let native = RabbitMqOptions {
            settlement: SettlementMode::Native,
            ..options(url)
        };
        RabbitMq::connect(native, Notices::default().sink())
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn retries_and_rejects_end_where_the_owners_policy_says() {
        for url in [shared_url(), shared_url_of_4()] {
            let (connection, queue, exit) = owned(&url, &[("x-delivery-limit", number(2))]).await;
            let channel = connection.create_channel().await.unwrap();
            declare(&channel, &exit, true, quorum()).await;
            let broker = connect(&url).await;
            fill(&broker, &queue, &["rejected"]).await;
            let mut consumer = broker.consume(&queue, 1).await.unwrap();
            next(&mut consumer).await.settle(dead()).await.unwrap();
            fill(&broker, &queue, &["retried"]).await;
            for run in 0..3 {
                let delivery = next(&mut consumer).await;
                assert_eq!(delivery.crashes, run);
                delivery.settle(retry(Duration::ZERO)).await.unwrap();
            }
            let mut exits = Vec::new();
            let until = tokio::time::Instant::now() + PATIENCE;
            while exits.len() < 2 {
                assert!(tokio::time::Instant::now() < until, "{exits:?}");
                let get = BasicGetOptions { no_ack: true };
                let got = channel.basic_get(exit.as_str().into(), get).await.unwrap();
                exits.extend(got.map(|got| got.delivery.data));
            }
            assert_eq!(exits, [&b"rejected"[..], b"retried"]);
            for name in ["dead", "delay.0"] {
                assert!(!is_there(&connection, &format!("{queue}.{name}")).await);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_owners_cycle_through_a_waiting_queue_brings_a_reject_back() {
        for url in [shared_url(), shared_url_of_4()] {
            let (connection, queue, exit) = owned(&url, &[]).await;
            let channel = connection.create_channel().await.unwrap();
            let waiting = table(&[
                ("x-queue-type", text("quorum")),
                ("x-message-ttl", number(500)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(queue.as_str())),
            ]);
            declare(&channel, &exit, true, waiting).await;
            let broker = connect(&url).await;
            fill(&broker, &queue, &["1"]).await;
            let mut consumer = broker.consume(&queue, 1).await.unwrap();
            for _ in 0..3 {
                next(&mut consumer).await.settle(dead()).await.unwrap();
            }
            next(&mut consumer).await.settle(done()).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_retry_on_a_queue_without_a_policy_does_not_spin() {
        let url = shared_url();
        let broker = connect(&url).await;
        let queue = super::queue("spin");
        fill(&broker, &queue, &["1"]).await;
        let mut consumer = broker.consume(&queue, 1).await.unwrap();
        let since = tokio::time::Instant::now();
        for _ in 0..3 {
            let hour = Duration::from_secs(3600);
            next(&mut consumer).await.settle(retry(hour)).await.unwrap();
        }
        // Each waits for a second at least, however fast the machine is, and not for an hour.
        assert!(since.elapsed() >= Duration::from_secs(3));
        next(&mut consumer).await.settle(done()).await.unwrap();
    }
}
