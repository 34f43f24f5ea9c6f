//! Whatever a producer sends, no worker stops: each message ends as a task or as a dead letter with a
//! reason.

mod catalogue;
mod wire;

use std::collections::BTreeMap;

use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Message, Record, ReplyTo};
use scutwork::task::new_id;
use serde_json::Value;

use self::catalogue::{DEEP, Hostile, NAMES, all, hostile, values};
use self::wire::{Properties, Wire, entry};
use crate::broker_contract::printed;
use crate::support::program::{Place, Running};
use crate::support::rabbitmq::{shared_url, shared_url_of_4};

/// What is published before a worker is looked at, so that every message meets every other.
const SEEDED: u32 = 1500;

/// A queue with a worker on it.
struct Target {
    place: Place,
    broker: String,
    queue: String,
    worker: Running,
    /// What the worker said of each end, by how it ended.
    ends: BTreeMap<&'static str, u32>,
    /// Whether a message may cost a connection.
    may_reconnect: bool,
}

impl Target {
    fn new(broker: &str) -> Target {
        let place = Place::new();
        // What is too large to come back fails, and is not to be tried for minutes.
        place.plugin("echo", "[retry]\nmax_attempts = 1\n");
        place.file(
            "scutwork.toml",
            "[worker]\nunknown_plugin_ttl = \"1s\"\nmax_payload = \"20MiB\"\n",
        );
        let queue = format!("hostile.{}", new_id());
        let worker = place.worker(broker, &queue, &[]);
        Target {
            place,
            broker: broker.to_owned(),
            queue,
            worker,
            ends: BTreeMap::new(),
            may_reconnect: false,
        }
    }

    /// Waits until so many messages have ended, and asserts that the worker never stopped and never
    /// wrote what a terminal obeys.
    fn await_ends(&mut self, count: u32) {
        while self.ends.values().sum::<u32>() < count {
            let line = self.worker.next_line();
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(!line.contains("not taking tasks"), "{line}");
            if !self.may_reconnect {
                assert!(!line.contains("cannot publish"), "{line}");
            }
            assert!(!line.contains("not settled"), "{line}");
            for (word, end) in [(" done task=", "done"), (" dead: ", "dead")] {
                if line.contains(word) {
                    *self.ends.entry(end).or_default() += 1;
                }
            }
        }
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut all = arguments.to_vec();
        all.extend(["--broker", &self.broker, "--queue", &self.queue]);
        self.place.run(&all).exits(0).text()
    }

    /// The dead letters with their payloads, after a look at what commands write of them.
    fn letters(&self) -> Vec<Value> {
        for command in [
            &["dead", "list"][..],
            &["dead", "list", "--flat", "--limit", "100000"],
            &["dead", "list", "-o", "json"],
            &["queue", "status"],
        ] {
            let text = self.run(command);
            let bad = |character: &char| character.is_control() && *character != '\n';
            assert_eq!(text.chars().find(bad), None, "{command:?}: {text}");
        }
        let letters = self.run(&["dead", "export"]);
        letters
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Publishes, with a new connection for each that the broker refuses. Gives how many it took.
fn publish(url: &str, queue: &str, messages: impl IntoIterator<Item = Hostile>) -> Vec<Hostile> {
    let mut wire = Wire::open(url);
    let mut taken = Vec::new();
    for message in messages {
        match wire.publish(queue, &message.properties, &message.body) {
            Ok(()) => taken.push(message),
            Err(_) => {
                println!("refused by the broker: {}", message.name);
                wire = Wire::open(url);
            }
        }
    }
    taken
}

fn every_hostile_message_ends(url: &str) {
    let mut target = Target::new(url);
    let listed = all(&target.queue)
        .into_iter()
        .enumerate()
        .map(|(number, mut one)| {
            // What has no id of its own is known by its payload.
            if !one.body.is_empty() && one.body.len() < 100 {
                one.body = number.to_string().into_bytes();
            }
            one
        });
    let taken = publish(url, &target.queue, listed);
    let count = u32::try_from(taken.len()).unwrap();
    target.await_ends(count);
    println!(
        "hostile messages: {:?} of {} taken",
        target.ends,
        taken.len()
    );
    let letters = target.letters();
    assert_each_is_there(&letters, &target);
    for letter in &letters {
        assert!(!letter["error"].as_str().unwrap().is_empty(), "{letter}");
    }
    for one in taken.iter().filter(|one| !one.body.is_empty()) {
        let Some(error) = one.dies_of else { continue };
        let body = String::from_utf8(one.body.clone()).unwrap();
        let letter = letters
            .iter()
            .find(|letter| letter["payload"]["text"] == body);
        let letter = letter.unwrap_or_else(|| panic!("{} is not dead", one.name));
        let why = letter["error"].as_str().unwrap();
        assert!(why.contains(error), "{}: {why}", one.name);
    }
    assert_serves(&mut target);
}

/// At least once: a broker that says no to a letter may have it all the same, and then has two.
fn assert_each_is_there(letters: &[Value], target: &Target) {
    let (there, due) = (letters.len(), target.ends["dead"]);
    assert!(there >= usize::try_from(due).unwrap(), "{there} of {due}");
}

/// The worker still does what it is for.
fn assert_serves(target: &mut Target) {
    let reply = target.run(&["submit", "echo", "still here", "--wait"]);
    assert_eq!(reply, "still here");
}

#[test]
fn every_hostile_message_ends_on_rabbitmq_3() {
    every_hostile_message_ends(&shared_url());
}

#[test]
fn every_hostile_message_ends_on_rabbitmq_4() {
    every_hostile_message_ends(&shared_url_of_4());
}

#[test]
fn a_routing_key_that_is_not_utf_8_stops_nobody() {
    for url in [shared_url(), shared_url_of_4()] {
        let mut target = Target::new(&url);
        let mut wire = Wire::open(&url);
        wire.bind(&target.queue, &target.queue);
        for key in [&b"\xff\xfe"[..], &[0x80; 255], b"\xc3"] {
            let echo = Properties::kind("echo");
            wire.publish_to(&target.queue, key, &echo, b"x").unwrap();
            let nobody = Properties::kind("/");
            wire.publish_to(&target.queue, key, &nobody, b"x").unwrap();
        }
        target.await_ends(6);
        assert_eq!(target.ends, BTreeMap::from([("dead", 3), ("done", 3)]));
    }
}

/// 3.10 crashes the connection of who publishes to a process of a node that it does not know, and such
/// an address has the right form.
#[test]
fn a_reply_that_the_broker_fails_at_is_given_up_and_its_task_is_done() {
    for url in [shared_url(), shared_url_of_4()] {
        let mut target = Target::new(&url);
        target.may_reconnect = true;
        let mut wire = Wire::open(&url);
        let nobody = "amq.rabbitmq.reply-to.g1h3CHJlcGx5QDc3AABFEAAAAABrBb7h.x";
        for _ in 0..3 {
            let asking = Properties::kind("echo").with_text(6, nobody);
            wire.publish(&target.queue, &asking, b"x").unwrap();
        }
        target.await_ends(3);
        assert_eq!(target.ends, BTreeMap::from([("done", 3)]));
        assert_serves(&mut target);
    }
}

fn random_text(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u32(0..5) {
        0 => random.choice(NAMES).unwrap().to_vec(),
        1 => b"echo".to_vec(),
        2 => vec![random.u8(..); random.usize(0..256)],
        _ => (0..random.usize(0..20)).map(|_| random.u8(..)).collect(),
    }
}

fn random_message(random: &mut fastrand::Rng, values: &[(u8, Vec<u8>)]) -> Hostile {
    let mut properties = Properties::default();
    for place in [0, 1, 5, 6, 8, 10, 12, 13] {
        if random.u32(0..4) == 0 {
            properties = properties.with_text(place, random_text(random));
        }
    }
    if random.bool() {
        let mut entries = Vec::new();
        for _ in 0..random.u32(0..4) {
            let (kind, value) = random.choice(values).unwrap();
            if value.len() < 1000 {
                entries.extend(entry(random_text(random), *kind, value));
            }
        }
        properties = properties.with_headers(&entries);
    }
    if random.bool() {
        properties = properties.with(4, vec![random.u8(..)]);
    }
    let body = (0..random.usize(0..50)).map(|_| random.u8(..)).collect();
    hostile("random", properties).body(body)
}

/// A seeded fuzz; `SCUTWORK_FUZZ` gives the number of messages, `SCUTWORK_FUZZ_SEED` the seed.
fn random_messages_end(url: &str) {
    let asked = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let count = asked("SCUTWORK_FUZZ").unwrap_or(SEEDED.into());
    let seed = asked("SCUTWORK_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("fuzz: {count} messages, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // The broker hangs up at what is no number to it.
    let mut values = values(DEEP);
    values.retain(|(kind, _)| !matches!(kind, b'f' | b'd'));
    let mut target = Target::new(url);
    let messages = (0..count).map(|_| random_message(&mut random, &values));
    let taken = publish(url, &target.queue, messages);
    target.await_ends(u32::try_from(taken.len()).unwrap());
    println!("fuzz: {:?} of {} taken", target.ends, taken.len());
    assert_each_is_there(&target.letters(), &target);
    assert_serves(&mut target);
}

#[test]
fn random_messages_end_on_rabbitmq_3() {
    random_messages_end(&shared_url());
}

#[test]
fn random_messages_end_on_rabbitmq_4() {
    random_messages_end(&shared_url_of_4());
}

/// What a producer can put on the embedded queue by the library is text already; the rest is the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_message_ends_on_sqlite() {
    let mut target = Target::new("sqlite:queue.db");
    let path = target.place.path().join("queue.db");
    let broker = Sqlite::open(SqliteOptions::new(path), printed()).unwrap();
    let mut messages = Vec::new();
    for name in NAMES {
        let text = String::from_utf8_lossy(name).into_owned();
        messages.push(Message {
            plugin: Some(text.clone()),
            ..Message::default()
        });
        messages.push(Message {
            plugin: Some("echo".into()),
            id: Some(text.clone()),
            content_type: Some(text.clone()),
            headers: vec![(text.clone(), text.repeat(1000)); 1000],
            reply_to: Some(ReplyTo {
                address: text.clone(),
                correlation_id: Some(text),
                notify: true,
            }),
            priority: Some(255),
            record: Record {
                attempt: u32::MAX,
                on_trial: true,
                parked_since: std::time::SystemTime::now()
                    .checked_add(std::time::Duration::from_secs(1 << 33)),
            },
            ..Message::default()
        });
    }
    messages.push(Message {
        body: vec![b'.'; 64 << 20].into(),
        ..Message::default()
    });
    let count = u32::try_from(messages.len()).unwrap();
    let queue = target.queue.parse().unwrap();
    broker.publish(&queue, messages, None).await.unwrap();
    tokio::task::block_in_place(|| {
        target.await_ends(count);
        assert_serves(&mut target);
        let letters = target.letters();
        assert_each_is_there(&letters, &target);
        println!("hostile messages on SQLite: {:?}", target.ends);
    });
}
