//! Connections that are refused, that break, and that are made again.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::{Broker, BrokerError, Message, Notice, SettleError};

use super::{Notices, connect, done, message, next, options, queue, refusal, stranger};
use crate::support::network::Network;
use crate::support::rabbitmq::{Node, shared_url};

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

/// An end without one is a warning in the broker's log, at every stop of a worker and every `submit --wait`.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_waits_for_the_brokers_goodbye() {
    let network = Network::to(&shared_url());
    for _ in 0..5 {
        let queue = queue("goodbye");
        let broker = connect(&network.url("/%2f")).await;
        let mut consumer = broker.consume(&queue, 10).await.unwrap();
        broker
            .publish(&queue, vec![message("a")], None)
            .await
            .unwrap();
        next(&mut consumer).await.settle(done()).await.unwrap();
        consumer.stop().await;
        broker.replies().await.unwrap().close().await;
        broker.close().await;
    }
    // What ends right after it asked has channels that were only dropped.
    for _ in 0..100 {
        let broker = connect(&network.url("/%2f")).await;
        broker.depth(&queue("goodbye")).await.unwrap();
        broker.close().await;
    }
    let abruptly = tokio::task::spawn_blocking(move || network.ended_abruptly());
    assert_eq!(abruptly.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_broker_of_several_that_answers_is_taken() {
    let mut several = options(&shared_url());
    several.urls.insert(0, "amqp://127.0.0.1:1".to_owned());
    let broker = RabbitMq::connect(several, Notices::default().sink()).await;
    assert!(broker.is_ok());
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
    let sent: Vec<Message> = (0..100).map(|n| message(n.to_string())).collect();
    let mut owed: BTreeSet<_> = sent.iter().map(|message| message.id.clone()).collect();
    broker.publish(&queue, sent, None).await.unwrap();
    let stale = next(&mut consumer).await;
    node.kill().await;
    let lost = |notice: &Notice| matches!(notice, Notice::Disconnected(..));
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
async fn a_deleted_queue_is_made_again_with_its_delays() {
    let url = shared_url();
    let notices = Notices::default();
    let broker = RabbitMq::connect(options(&url), notices.sink())
        .await
        .unwrap();
    let queue = queue("deleted");
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    // Longer than queues that were only just made are waited for.
    let soon = Some(Duration::from_secs(5));
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
    let told = |notice: &Notice| matches!(notice, Notice::Disconnected(_, text) if text.contains("deleted"));
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
