//! `scutwork dead` as an operator uses it, each test on both brokers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Message};
use serde_json::Value;

use crate::broker_contract::dead_letters::bury;
use crate::broker_contract::printed;
use crate::support::both_brokers::on_both_brokers;
use crate::support::program::{Ended, PATIENCE, Place};

on_both_brokers![
    "dead":
    list_groups_what_died_of_the_same,
    show_tells_the_cause_and_the_payload_only_when_asked,
    retry_runs_a_task_again_with_another_payload_and_the_same_id,
    retry_and_discard_take_only_what_fits,
    a_dry_run_changes_nothing,
    an_id_that_is_not_there_exits_66,
    export_writes_every_byte_of_every_payload,
    a_retry_that_is_killed_half_way_loses_nothing,
    a_retry_that_is_killed_at_any_moment_loses_nothing,
    ten_thousand_dead_letters_are_listed_in_little_memory_and_stay_as_they_were,
];

/// A place with a queue on which tasks die.
struct Morgue {
    place: Place,
    broker: String,
    queue: String,
}

impl Morgue {
    fn new(place: Place, broker: &str, queue: &str) -> Morgue {
        place.plugin("picky", "");
        Morgue {
            place,
            broker: broker.to_owned(),
            queue: queue.to_owned(),
        }
    }

    fn arguments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = rest.to_vec();
        arguments.extend(["--broker", &self.broker, "--queue", &self.queue]);
        arguments
    }

    fn run(&self, rest: &[&str]) -> Ended {
        self.place.run(&self.arguments(rest))
    }

    fn json(&self, rest: &[&str]) -> Value {
        let mut arguments = self.arguments(rest);
        arguments.extend(["-o", "json"]);
        serde_json::from_slice(&self.place.run(&arguments).exits(0).stdout).unwrap()
    }

    /// Lets a task die for each submit, and what was begun beside it come to its end.
    fn kill(&self, submits: &[&[&str]]) {
        let worker = self.place.worker(&self.broker, &self.queue, &[]);
        for submit in submits {
            let mut arguments = vec!["submit", "picky"];
            arguments.extend(*submit);
            arguments.push("--wait");
            self.run(&arguments).exits(1);
        }
        worker.terminate();
        let (code, said) = worker.wait();
        assert_eq!(code, Some(0), "{said}");
    }

    /// Buries letters by the library, with their numbers as ids and bodies of this size.
    fn bury(&self, count: u32, size: usize) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let broker: Arc<dyn Broker> = match self.broker.strip_prefix("sqlite:") {
                Some(file) => {
                    let options = SqliteOptions::new(self.place.path().join(file));
                    Arc::new(Sqlite::open(options, printed()).unwrap())
                }
                None => {
                    let options = RabbitMqOptions::new(vec![self.broker.clone()]);
                    Arc::new(RabbitMq::connect(options, printed()).await.unwrap())
                }
            };
            let message = |number: u32| Message {
                id: Some(number.to_string()),
                plugin: Some("picky".into()),
                body: vec![b'x'; size].into(),
                ..Message::default()
            };
            let queue = self.queue.parse().unwrap();
            bury(&*broker, &queue, (0..count).map(message).collect()).await;
            broker.close().await;
        });
    }

    /// How many wait, and how many are dead.
    fn counts(&self) -> (u64, u64) {
        let status = self.json(&["queue", "status"]);
        let count = |part: &str| status[part].as_u64().unwrap();
        (count("ready"), count("dead"))
    }

    /// Waits until the broker has taken back what a killed command held.
    fn await_counts(&self, is_right: impl Fn(u64, u64) -> bool) -> (u64, u64) {
        let began = Instant::now();
        loop {
            let (ready, dead) = self.counts();
            if is_right(ready, dead) {
                return (ready, dead);
            }
            assert!(began.elapsed() < PATIENCE, "{ready} ready, {dead} dead");
        }
    }

    fn ids(&self) -> Vec<String> {
        let flat = self
            .run(&["dead", "list", "--flat", "--limit", "10000"])
            .exits(0);
        let id = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        flat.text().lines().map(id).collect()
    }
}

fn list_groups_what_died_of_the_same(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[
        &["ugly", "--count", "3"],
        &["late", "--header", "code=too-late", "--id", "mine"],
    ]);
    let list = morgue.json(&["dead", "list"]);
    assert_eq!(list["total"], 4);
    let [many, one] = list["groups"].as_array().unwrap().as_slice() else {
        panic!("{list}");
    };
    assert_eq!(
        (&many["count"], &many["code"], &many["plugin"]),
        (&3.into(), &"not-to-my-taste".into(), &"picky".into())
    );
    assert_eq!(
        (&one["count"], &one["code"], &one["example"]),
        (&1.into(), &"too-late".into(), &"mine".into())
    );
    assert!(many["first"].as_str().unwrap() <= many["last"].as_str().unwrap());
    let filtered = morgue.json(&["dead", "list", "--code", "too-late"]);
    assert_eq!(filtered["total"], 1);
    let first = morgue
        .run(&["dead", "list", "--flat", "--limit", "2"])
        .exits(0);
    assert_eq!(first.text().lines().count(), 2, "{}", first.text());
    assert_eq!(morgue.ids().len(), 4);
}

fn show_tells_the_cause_and_the_payload_only_when_asked(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[&["secret", "--id", "mine", "--header", "from=me"]]);
    let shown = morgue.json(&["dead", "show", "mine"]);
    assert_eq!(
        (
            &shown["reason"],
            &shown["attempts"],
            &shown["headers"]["from"]
        ),
        (&"rejected".into(), &1.into(), &"me".into())
    );
    assert_eq!(shown["digest"].as_str().unwrap().len(), 64);
    assert!(shown.get("payload").is_none(), "{shown}");
    let shown = morgue.json(&["dead", "show", "mine", "--payload"]);
    assert_eq!(shown["payload"]["text"], "secret");
    let shown = morgue.run(&["dead", "show", "mine", "--payload"]).exits(0);
    assert_eq!(shown.text(), "secret");
}

fn retry_runs_a_task_again_with_another_payload_and_the_same_id(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[&["wrong", "--id", "mine"]]);
    let retried = morgue
        .run(&["dead", "retry", "mine", "--payload", "still wrong"])
        .exits(0);
    assert_eq!(retried.text(), "mine\n");
    assert_eq!(morgue.ids(), [""; 0]);
    // A task of its own behind it: once that is dead, so is the one before.
    morgue.kill(&[&["marker"]]);
    let shown = morgue.json(&["dead", "show", "mine", "--payload"]);
    assert_eq!(
        (&shown["payload"]["text"], &shown["attempts"]),
        (&"still wrong".into(), &1.into())
    );
}

fn retry_and_discard_take_only_what_fits(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    let coded = |id, code| vec!["x", "--id", id, "--header", code];
    morgue.kill(&[
        &coded("a", "code=red"),
        &coded("b", "code=green"),
        &coded("c", "code=red"),
        &coded("d", "code=blue"),
    ]);
    let retried = morgue.run(&["dead", "retry", "--code", "red"]).exits(0);
    assert_eq!(retried.text(), "a\nc\n");
    let discarded = morgue.run(&["dead", "discard", "b"]).exits(0);
    assert_eq!(discarded.text(), "b\n");
    assert_eq!(morgue.ids(), ["d"]);
    morgue.run(&["dead", "discard"]).exits(2).says(&["--all"]);
    morgue.run(&["dead", "retry", "d", "--all"]).exits(2);
    morgue.run(&["dead", "discard", "--all"]).exits(0);
    assert_eq!(morgue.ids(), [""; 0]);
}

fn a_dry_run_changes_nothing(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[&["x", "--count", "3"]]);
    let before = morgue.ids();
    for command in ["retry", "discard"] {
        let shown = morgue
            .run(&["dead", command, "--all", "--dry-run"])
            .exits(0);
        assert_eq!(shown.text().lines().collect::<Vec<_>>(), before);
        assert_eq!(morgue.ids(), before);
    }
}

fn an_id_that_is_not_there_exits_66(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[&["x", "--id", "here"]]);
    morgue
        .run(&["dead", "show", "gone"])
        .exits(66)
        .says(&["gone"]);
    let retried = morgue.run(&["dead", "retry", "here", "gone"]).exits(66);
    assert_eq!(retried.says(&["gone"]).text(), "here\n");
}

fn export_writes_every_byte_of_every_payload(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.place.file("binary", [0xff, 0x00, 0xfe]);
    morgue.kill(&[&["text"], &["@binary"]]);
    morgue.run(&["dead", "export", "out.jsonl"]).exits(0);
    let written = std::fs::read_to_string(morgue.place.path().join("out.jsonl")).unwrap();
    let payloads: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"].clone())
        .collect();
    assert_eq!(payloads[0]["text"], "text");
    assert_eq!(payloads[1]["base64"], "/wD+");
    morgue
        .run(&["dead", "export", "out.jsonl"])
        .exits(2)
        .says(&["out.jsonl"]);
    assert_eq!(morgue.run(&["dead", "export"]).exits(0).text(), written);
}

fn a_retry_that_is_killed_half_way_loses_nothing(place: Place, broker: &str, queue: &str) {
    let morgue = &Morgue::new(place, broker, queue);
    morgue.kill(&[&["x", "--count", "60"]]);
    // A letter may be there twice, as at least once does.
    let ids = || BTreeSet::from_iter(morgue.ids());
    let before = ids();
    assert_eq!(before.len(), 60);
    let slow = morgue.arguments(&["dead", "retry", "--all", "--rate", "20/s"]);
    let mut retry = morgue.place.start_and_hear(&slow);
    for _ in 0..10 {
        retry.next_line();
    }
    retry.kill();
    let left = ids();
    assert!(left.len() < 60, "nothing was retried");
    assert!(!left.is_empty(), "it was not killed half way");
    // What was retried dies again, behind a task of its own.
    morgue.kill(&[&["marker", "--id", "marker"]]);
    let after = ids();
    for id in before {
        assert!(after.contains(&id), "{id} is lost");
    }
}

/// `SCUTWORK_RETRIES` gives how many are killed.
fn a_retry_that_is_killed_at_any_moment_loses_nothing(place: Place, broker: &str, queue: &str) {
    let morgue = Morgue::new(place, broker, queue);
    const COUNT: u32 = 300;
    let kills = std::env::var("SCUTWORK_RETRIES").map_or(12, |text| text.parse().unwrap());
    let all: BTreeSet<String> = (0..COUNT).map(|number| number.to_string()).collect();
    morgue.bury(COUNT, 100);
    let retry = morgue.arguments(&["dead", "retry", "--all", "--rate", "2000/s"]);
    // One that nobody kills tells how long there is to kill one.
    let began = Instant::now();
    morgue.place.run(&retry).exits(0);
    let whole = began.elapsed();
    let die_again = || {
        morgue.kill(&[&["marker", "--id", "marker"]]);
        morgue.run(&["dead", "discard", "marker"]).exits(0);
    };
    die_again();
    let mut half_way = 0;
    for _ in 0..kills {
        let (_, before) = morgue.counts();
        let mut retrying = morgue.place.start_and_hear(&retry);
        // A moment that no event tells of: every one is to be possible.
        std::thread::sleep(whole.mul_f64(fastrand::f64()));
        retrying.kill();
        let (_, dead) = morgue.await_counts(|ready, dead| ready + dead >= COUNT.into());
        half_way += u32::from((1..before).contains(&dead));
        if dead == 0 {
            die_again();
        }
    }
    println!("{half_way} of {kills} retries were killed half way");
    // What was retried dies again, behind a task of its own.
    morgue.kill(&[&["marker", "--id", "marker"]]);
    let after: BTreeSet<String> = morgue.ids().into_iter().collect();
    let lost: Vec<_> = all.difference(&after).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

fn ten_thousand_dead_letters_are_listed_in_little_memory_and_stay_as_they_were(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let morgue = Morgue::new(place, broker, queue);
    const COUNT: u32 = 10_000;
    // All of them at once would be 80 MiB.
    morgue.bury(COUNT, 8 << 10);
    for command in [&["dead", "list"][..], &["dead", "export", "all.jsonl"]] {
        let list = morgue.place.start_and_hear(&morgue.arguments(command));
        let mut peak = 0;
        while let Some(now) = list.peak_memory() {
            peak = now;
            std::thread::yield_now();
        }
        println!(
            "{command:?} of {COUNT} dead letters: {} MiB at most",
            peak >> 20
        );
        assert_eq!(list.wait().0, Some(0));
        assert!(peak < 70 << 20, "{peak} bytes for {command:?}");
    }
    assert_eq!(morgue.json(&["dead", "list"])["total"], COUNT);
    assert_eq!(morgue.await_counts(|_, dead| dead == u64::from(COUNT)).0, 0);
    let exported = std::fs::read_to_string(morgue.place.path().join("all.jsonl")).unwrap();
    let ids: BTreeSet<u32> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .map(|id| id.as_str().unwrap().parse().unwrap())
        .collect();
    assert!(ids.into_iter().eq(0..COUNT));
}
