//! A prefetch that changes, which takes a new subscription.

use std::time::Duration;

use scutwork::broker::{Broker, Notice, SettleError};
use tokio::time::timeout;

use super::{Notices, connect, connect_and_hear, done, fill, finish, message, next, queue};
use crate::support::network::{Network, Way};
use crate::support::rabbitmq::{shared_url, shared_url_of_4};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_while_the_prefetch_changes_loses_nothing() {
    for url in [shared_url(), shared_url_of_4()] {
        for way in [Way::ToBroker, Way::FromBroker] {
            let network = Network::to(&url);
            let notices = Notices::default();
            let broker = connect_and_hear(&network.url(""), &notices).await;
            let queue = queue("changing");
            let bodies: Vec<String> = (0..20).map(|number| number.to_string()).collect();
            let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
            fill(&broker, &queue, &bodies).await;
            let mut consumer = broker.consume(&queue, 2).await.unwrap();
            let held = next(&mut consumer).await;
            // Either the new subscription is not asked for, or it is and nobody hears of it.
            network.cut(way);
            consumer.set_prefetch(10);
            network.tear();
            network.heal();
            let is_loss = |notice: &Notice| matches!(notice, Notice::Disconnected(..));
            notices.wait_for(is_loss).await;
            let settled = held.settle(done()).await;
            assert!(matches!(settled, Err(SettleError::Lost)), "{settled:?}");
            finish(&broker, consumer, &queue, &bodies).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_prefetch_outlasts_the_connection() {
    let url = shared_url();
    let network = Network::to(&url);
    let notices = Notices::default();
    let (broker, direct) = (
        connect_and_hear(&network.url(""), &notices).await,
        connect(&url).await,
    );
    let queue = queue("outlasting");
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    network.tear();
    consumer.set_prefetch(5);
    notices
        .wait_for(|notice| matches!(notice, Notice::Disconnected(..)))
        .await;
    let messages = (0..5).map(|number| message(number.to_string())).collect();
    direct.publish(&queue, messages, None).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(next(&mut consumer).await);
    }
    for delivery in held {
        delivery.settle(done()).await.unwrap();
    }
}

/// Changes the prefetch with a broker that ends the subscription before late.
async fn end_late(url: String) {
    // More than a broker has for any other answer, and the moment until this one is asked for.
    let late = Duration::from_secs(25);
    let network = Network::to(&url);
    let notices = Notices::default();
    let broker = connect_and_hear(&network.url(""), &notices).await;
    let queue = queue("late");
    fill(&broker, &queue, &["1", "2"]).await;
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let held = next(&mut consumer).await;
    network.withhold_ends();
    consumer.set_prefetch(2);
    let more = next(&mut consumer).await;
    let is_loss = |notice: &Notice| matches!(notice, Notice::Disconnected(..));
    let lost = timeout(late, notices.wait_for(is_loss)).await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(network.tell_ends(), 1);
    for delivery in [held, more] {
        delivery.settle(done()).await.unwrap();
    }
    finish(&broker, consumer, &queue, &[]).await;
}

/// A broker that chews on a message answers behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_ends_late_costs_nothing_that_is_held() {
    tokio::join!(end_late(shared_url()), end_late(shared_url_of_4()));
}
