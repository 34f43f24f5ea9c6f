//! Messages that kill the workers that run them, and what becomes of their neighbours.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

use crate::support::both_brokers::on_both_brokers;
use crate::support::program::Place;
use crate::support::rabbitmq::{shared_url, shared_url_of_4};

on_both_brokers![
    "poison":
    what_kills_workers_dies_of_it_and_no_neighbour_does,
];

/// How many harmless tasks lie around the poison.
const NEIGHBOURS: &str = "24";

/// The tasks that kill their worker as soon as they start. Two, because then one may kill while the other
/// is on trial.
const POISON: [&str; 2] = ["poison-one", "poison-two"];

fn submit<'a>(broker: &'a str, queue: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["submit", "--broker", broker, "--queue", queue];
    arguments.extend(rest);
    arguments
}

/// Kills every worker that starts one of the poisonous tasks, until they are all dead; gives how many.
fn suffer(place: &Place, broker: &str, queue: &str) -> (crate::support::program::Running, usize) {
    let (mut dead, mut kills) = (BTreeSet::new(), 0);
    loop {
        let mut worker = place.worker(broker, queue, &["--slots", "8"]);
        loop {
            let line = worker.next_line();
            let Some(poison) = POISON.iter().find(|poison| line.contains(*poison)) else {
                continue;
            };
            if line.contains("started") {
                worker.kill();
                kills += 1;
                break;
            }
            if line.contains("dead:") && dead.insert(poison) && dead.len() == POISON.len() {
                return (worker, kills);
            }
        }
    }
}

fn what_kills_workers_dies_of_it_and_no_neighbour_does(place: Place, broker: &str, queue: &str) {
    let harmless = ["dots", ".", "--count", NEIGHBOURS, "--wait"];
    let mut neighbours = place.start(&submit(broker, queue, &harmless));
    for poison in POISON {
        let minute = ".".repeat(60);
        let arguments = ["dots", minute.as_str(), "--id", poison];
        place.run(&submit(broker, queue, &arguments)).exits(0);
    }
    let (_worker, kills) = suffer(&place, broker, queue);
    neighbours.wait_for(&format!(
        "done {NEIGHBOURS}, retried 0, dead 0 of {NEIGHBOURS}"
    ));
    assert_eq!(neighbours.code(), Some(0));
    // Three times beside others, which they may share, and twice alone.
    assert!((7..=10).contains(&kills), "{kills} workers died");
    let letters = [
        "dead", "list", "--flat", "--broker", broker, "--queue", queue,
    ];
    let listed = place.run(&letters).exits(0).text();
    for poison in POISON {
        let letter = listed.lines().find(|line| line.contains(poison));
        assert!(
            letter.is_some_and(|letter| letter.contains("crashed")),
            "{listed}"
        );
    }
}

/// How many messages are ready on a queue. None: there is no such queue.
async fn ready(connection: &Connection, queue: &str) -> Option<u32> {
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default());
    found.await.ok().map(|queue| queue.message_count())
}

#[tokio::test(flavor = "multi_thread")]
async fn natively_the_owners_policy_ends_what_kills_workers() {
    for url in [shared_url(), shared_url_of_4()] {
        let queue = format!("poison.native.{}", scutwork::task::new_id());
        let letters = format!("{queue}.letters");
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut plain = FieldTable::default();
        plain.insert("x-queue-type".into(), text("quorum"));
        let mut policed = plain.clone();
        policed.insert("x-delivery-limit".into(), AMQPValue::LongInt(4));
        policed.insert("x-dead-letter-exchange".into(), text(""));
        policed.insert("x-dead-letter-routing-key".into(), text(&letters));
        for (name, arguments) in [(&letters, plain), (&queue, policed)] {
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel.queue_declare(name.as_str().into(), options, arguments);
            declared.await.unwrap();
        }
        let place = Place::new();
        place.file("scutwork.toml", "[worker]\nsettlement = \"native\"\n");
        let minute = ".".repeat(60);
        place
            .run(&submit(&url, &queue, &["dots", minute.as_str()]))
            .exits(0);
        // Once for the first delivery, and once for each that the limit allows after that.
        for _ in 0..5 {
            let mut worker = place.worker(&url, &queue, &[]);
            worker.wait_for("started");
            worker.kill();
        }
        while ready(&connection, &letters).await != Some(1) {
            // The broker gives no sign of a dead letter to whoever does not take it.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(ready(&connection, &queue).await, Some(0));
        assert_eq!(ready(&connection, &format!("{queue}.suspects")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_place_for_suspects_before_there_is_one() {
    let (place, url) = (Place::new(), shared_url());
    let queue = format!("poison.never.{}", scutwork::task::new_id());
    let mut worker = place.worker(&url, &queue, &[]);
    place
        .run(&submit(&url, &queue, &["dots", ".", "--wait"]))
        .exits(0);
    worker.wait_for("INFO done");
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    assert_eq!(ready(&connection, &queue).await, Some(0));
    // A broker that is killed right after it made a quorum queue can lose it, with what was confirmed there.
    let place_for_them = format!("{queue}.suspects");
    while ready(&connection, &place_for_them).await != Some(0) {
        // The worker gives no sign of it.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
