//! What happens on the way between a worker and its broker: cuts in each direction, broken connections,
//! and a subscription that the broker ends.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use lapin::options::QueueDeleteOptions;
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::{Broker, Notice, SettleError};
use tokio::time::timeout;

use super::{
    Notices, connect, connect_and_hear, declare, done, fill, finish, message, next, options, queue,
    quorum, stranger,
};
use crate::support::network::{Network, Way};
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4};

fn is_loss(notice: &Notice) -> bool {
    matches!(notice, Notice::Disconnected(..))
}

/// Cuts the network of a worker that holds a delivery, and mends it once the worker has noticed.
async fn cut(url: String, ways: &[Way], says: &str) {
    let network = Network::to(&url);
    let notices = Notices::default();
    let hasty = RabbitMqOptions {
        heartbeat: Some(Duration::from_secs(1)),
        ..options(&network.url(""))
    };
    let broker = RabbitMq::connect(hasty, notices.sink()).await.unwrap();
    let near = connect(&url).await;
    let queue = queue("cut");
    fill(&near, &queue, &["1", "2", "3"]).await;
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    let held = next(&mut consumer).await;
    let since = Instant::now();
    for way in ways {
        network.cut(*way);
    }
    let Notice::Disconnected(_, why) = notices.wait_for(is_loss).await else {
        unreachable!("that is what was waited for");
    };
    eprintln!(
        "cut {ways:?} at a heartbeat of 1s: noticed after {:?}: {why}",
        since.elapsed()
    );
    assert!(why.contains(says), "{why}");
    assert!(!held.hold.is_live());
    assert!(matches!(held.settle(done()).await, Err(SettleError::Lost)));
    network.heal();
    finish(&broker, consumer, &queue, &["1", "2", "3"]).await;
}

async fn cut_both_versions(ways: &[Way], says: &str) {
    tokio::join!(
        cut(shared_url(), ways, says),
        cut(shared_url_of_4(), ways, says)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_network_is_noticed_by_its_silence_and_nothing_is_lost() {
    cut_both_versions(&[Way::ToBroker, Way::FromBroker], "stopped answering").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_heard_no_more_is_noticed_and_nothing_is_lost() {
    cut_both_versions(&[Way::FromBroker], "stopped answering").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hears_us_no_more_is_noticed_and_nothing_is_lost() {
    cut_both_versions(&[Way::ToBroker], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_heartbeats_a_broker_that_answers_nothing_is_noticed() {
    let url = shared_url();
    let network = Network::to(&url);
    let notices = Notices::default();
    // RabbitMQ 3.10 and 4.0 alike ask for one a minute; that is as good as none here.
    let broker = connect_and_hear(&network.url("?heartbeat=3600"), &notices).await;
    let queue = queue("deaf");
    fill(&broker, &queue, &["1"]).await;
    let consumer = broker.consume(&queue, 1).await.unwrap();
    network.cut(Way::ToBroker);
    let unanswered = |notice: &Notice| matches!(notice, Notice::Disconnected(_, why) if why.contains("gave no answer"));
    notices.wait_for(unanswered).await;
    network.heal();
    finish(&broker, consumer, &queue, &["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_as_close_together_as_the_broker_wants_them() {
    // Far less than the hour, and more than a busy machine keeps a process waiting.
    let node = Node::start_with("heartbeat = 3\n").await;
    let network = Network::to(&node.url());
    let notices = Notices::default();
    let broker = connect_and_hear(&network.url("?heartbeat=3600"), &notices).await;
    let queue = queue("wants");
    fill(&broker, &queue, &["1"]).await;
    let consumer = broker.consume(&queue, 1).await.unwrap();
    network.cut(Way::FromBroker);
    let silent = |notice: &Notice| matches!(notice, Notice::Disconnected(_, why) if why.contains("stopped answering"));
    notices.wait_for(silent).await;
    network.heal();
    finish(&broker, consumer, &queue, &["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_of_what_a_broken_connection_brought_never_acks_on_the_next() {
    for url in [shared_url(), shared_url_of_4()] {
        let network = Network::to(&url);
        let notices = Notices::default();
        let broker = connect_and_hear(&network.url(""), &notices).await;
        let queue = queue("stale");
        fill(&broker, &queue, &["1", "2"]).await;
        let mut consumer = broker.consume(&queue, 2).await.unwrap();
        // Their tags are 1 and 2, and so are those of what comes after.
        let stale = [next(&mut consumer).await, next(&mut consumer).await];
        network.tear();
        notices.wait_for(is_loss).await;
        let again = [next(&mut consumer).await, next(&mut consumer).await];
        for delivery in stale {
            let settled = delivery.settle(done()).await;
            assert!(matches!(settled, Err(SettleError::Lost)), "{settled:?}");
        }
        assert!(again.iter().all(|delivery| delivery.hold.is_live()));
        // Both are still the broker's to give back.
        network.tear();
        finish(&broker, consumer, &queue, &["1", "2"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancel_from_the_broker_what_was_held_comes_again_and_is_settled_once() {
    for url in [shared_url(), shared_url_of_4()] {
        let network = Network::to(&url);
        let notices = Notices::default();
        let broker = connect_and_hear(&network.url(""), &notices).await;
        let queue = queue("cancelled");
        fill(&broker, &queue, &["1", "2", "3"]).await;
        let mut consumer = broker.consume(&queue, 2).await.unwrap();
        let held = next(&mut consumer).await;
        network.cancel_consumers();
        let ended = |notice: &Notice| matches!(notice, Notice::Disconnected(_, why) if why.contains("ended the subscription"));
        notices.wait_for(ended).await;
        assert!(matches!(held.settle(done()).await, Err(SettleError::Lost)));
        finish(&broker, consumer, &queue, &["1", "2", "3"]).await;
    }
}

/// Pauses a queue, and has the broker end the subscription just when the worker is about to. Gives whether that
/// was the moment: a busy machine may hold a settlement up as well.
async fn ends_in_a_pause(url: &str) -> bool {
    // So many that the pause is seen before they are settled one by one, and fewer than may be held: what would
    // still come is waited for only where there is room for it.
    const COUNT: usize = 1000;
    const PACE: Duration = Duration::from_millis(20);
    // A broker that answers is far quicker, and the worker waits for half a second.
    const HELD_UP: Duration = Duration::from_millis(250);
    let network = Network::to(url);
    let notices = Notices::default();
    let broker = connect_and_hear(&network.url(""), &notices).await;
    let operator = connect(url).await;
    let queue = queue("pausing");
    let messages = (0..COUNT).map(|number| message(number.to_string()));
    operator
        .publish(&queue, messages.collect(), None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 2 * COUNT as u16).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..COUNT {
        held.push(next(&mut consumer).await);
    }
    operator.set_paused(&queue, true).await.unwrap();
    let mut pace = tokio::time::interval(PACE);
    let settling = loop {
        pace.tick().await;
        let delivery = held.pop().expect("it was never paused");
        let mut settling = tokio::spawn(delivery.settle(done()));
        match timeout(HELD_UP, &mut settling).await {
            Ok(settled) => settled.unwrap().unwrap(),
            // The sign that it ends the subscription.
            Err(_) => break settling,
        }
    };
    network.cancel_consumers();
    let is_pause = |notice: &Notice| matches!(notice, Notice::Paused(..));
    notices.wait_for(is_pause).await;
    if let Err(lost) = settling.await.unwrap() {
        eprintln!("not the moment: {lost:?}");
        return false;
    }
    let held = held.into_iter().map(|delivery| delivery.settle(done()));
    try_join_all(held).await.unwrap();
    operator.set_paused(&queue, false).await.unwrap();
    fill(&operator, &queue, &["more"]).await;
    finish(&broker, consumer, &queue, &["more"]).await;
    true
}

/// A worker that cannot bear it never finds the moment.
async fn end_in_a_pause(url: String) {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        if ends_in_a_pause(&url).await {
            return;
        }
    }
    panic!("the worker lost what it held in each of {TRIES} pauses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_which_the_broker_ends_the_subscription_is_seen_and_has_an_end() {
    tokio::join!(
        end_in_a_pause(shared_url()),
        end_in_a_pause(shared_url_of_4())
    );
}

async fn delete_and_make_again(url: String) {
    let broker = connect(&url).await;
    let queue = queue("anew");
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    // Due when the new queue is known to us: the broker tries what finds no queue again after minutes.
    let later = Some(Duration::from_secs(15));
    let late = vec![message("late")];
    broker.publish(&queue, late, later).await.unwrap();
    let (_connection, channel) = stranger(&url).await;
    let delete = QueueDeleteOptions::default();
    let deleted = channel.queue_delete(queue.as_str().into(), delete);
    deleted.await.unwrap();
    declare(&channel, queue.as_str(), true, quorum()).await;
    fill(&broker, &queue, &["early"]).await;
    for body in ["early", "late"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(&delivery.message.body[..], body.as_bytes());
        delivery.settle(done()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_somebody_deletes_and_makes_again_at_once_is_served_with_its_delays() {
    tokio::join!(
        delete_and_make_again(shared_url()),
        delete_and_make_again(shared_url_of_4())
    );
}
