//! What comes from outside and is decoded, in thousands of broken forms: manifests, messages, and what a
//! plugin's memory holds where its answer should be. Nothing of it is a panic.
//!
//! `SCUTWORK_DECODING=N` tries more; a failure says the seed, and `SCUTWORK_DECODING_SEED` repeats it.

use std::path::Path;

use fastrand::Rng;
use scutwork::broker::Message;
use scutwork::name::PluginName;
use scutwork::outcome::{Failure, Outcome};
use scutwork::plugin::Manifest;
use scutwork::sandbox::{Job, Limits};
use scutwork::task::{Task, TaskRules};

use crate::sandbox::{run, sandbox, task};
use crate::support::wat;

const MANIFEST: &str = r#"
[limits]
memory = "128MiB"
cpu = "20s"
timeout = "10m"
output = 4096
log_lines = 10
log_bytes = "1KiB"
handles = 10
random = 32
http_requests = 3
http_body = "2KiB"
http_timeout = "4s"
[retry]
max_attempts = 7
backoff = { initial = "1s", factor = 3, max = "1m", jitter = 0.5 }
[run]
concurrency = 8
args = ["-v", "--level=3"]
exit = { done = [3], retry = [75, 111], reject = [1] }
"#;

/// Texts that a decoder may trip over.
const PIECES: [&str; 24] = [
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "\\u0000",
    "\0",
    "-1",
    "1e999",
    "nan",
    "18446744073709551616",
    "\"1EiB\"",
    "\"584000000000y\"",
    "999999999h",
    "\u{feff}",
    "ä\u{301}",
    "limits.memory = 0",
    "[limits.limits]",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Tries a thing so many times with random numbers that a failure can have again.
fn try_often(times: u64, mut thing: impl FnMut(&mut Rng)) {
    let times = number("SCUTWORK_DECODING", times);
    let seed = number("SCUTWORK_DECODING_SEED", fastrand::u64(..));
    eprintln!("{times} times with SCUTWORK_DECODING_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..times {
        thing(&mut random);
    }
}

/// A text with pieces of it lost, doubled, moved or replaced.
fn broken(text: &str, random: &mut Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.usize(1..8) {
        let from = random.usize(..=bytes.len());
        let to = (from + random.usize(..12)).min(bytes.len());
        let piece: Vec<u8> = match random.u8(..4) {
            0 => Vec::new(),
            1 => bytes[from..to].repeat(random.usize(1..4)),
            2 => PIECES[random.usize(..PIECES.len())].into(),
            _ => vec![random.u8(..)],
        };
        bytes.splice(from..to, piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_broken_manifest_is_refused_with_its_file_or_means_what_it_may() {
    let ceiling = Limits {
        memory: 32 << 20,
        ..Limits::CEILING
    };
    let mut accepted = 0;
    try_often(5_000, |random| {
        let text = broken(MANIFEST, random);
        match Manifest::parse(&text, Path::new("thumb.toml"), &ceiling) {
            Ok(manifest) => {
                accepted += 1;
                assert_eq!(manifest.limits, manifest.limits.under(&ceiling), "{text}");
            }
            Err(error) => assert!(error.to_string().starts_with("thumb.toml"), "{error}"),
        }
    });
    assert!(accepted > 0, "none was whole enough to be read");
}

#[test]
fn a_broken_message_is_a_task_of_a_plugin_that_can_exist_or_none() {
    let rules = TaskRules {
        default_plugin: "dots".parse().unwrap(),
        max_payload: 1_000,
    };
    let text = |random: &mut Rng| {
        let text = broken("thumb-2.b", random);
        random.bool().then_some(text)
    };
    try_often(20_000, |random| {
        let mut message = Message {
            id: text(random),
            plugin: text(random),
            content_type: text(random),
            headers: (0..random.usize(..4))
                .filter_map(|_| Some((text(random)?, text(random)?)))
                .collect(),
            body: vec![0; random.usize(..2_000)].into(),
            ..Message::default()
        };
        if let Ok(task) = Task::decode(&mut message, &rules) {
            assert!(task.plugin.as_str().parse::<PluginName>().is_ok());
            assert!(task.payload.len() <= 1_000);
            assert_eq!(message.id.as_deref(), Some(task.id.as_str()));
        }
    });
}

#[tokio::test]
async fn an_answer_of_any_bytes_is_an_outcome() {
    let sandbox = sandbox(1);
    let mirror = sandbox.prepare(&wat::mirror()).unwrap();
    let grants = std::sync::Arc::default();
    let times = number("SCUTWORK_DECODING", 5_000);
    let seed = number("SCUTWORK_DECODING_SEED", fastrand::u64(..));
    eprintln!("{times} times with SCUTWORK_DECODING_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let (mut done, mut refused, mut trapped) = (0, 0, 0);
    for _ in 0..times {
        // Words, of which most are small enough to be a tag, a length or a place in memory.
        let words = (0..64).flat_map(|_| {
            let word = match random.u8(..8) {
                0 => random.u32(..),
                1 => random.u32(..1 << 20),
                2 | 3 => random.u32(1024..2048),
                _ => random.u32(..2),
            };
            word.to_le_bytes()
        });
        let task = task("mirror", words.collect::<Vec<u8>>());
        let job = Job {
            prepared: &mirror,
            task: &task,
            limits: Limits::default(),
            grants: &grants,
            max_attempts: 1,
        };
        match run(&sandbox, job).await.outcome {
            Outcome::Done(_) => done += 1,
            Outcome::Failed(Failure::Trapped { message }) => {
                assert!(!message.contains("host panicked"), "{message}");
                trapped += 1;
            }
            Outcome::Failed(_) => refused += 1,
            Outcome::Interrupted => panic!("nobody interrupted it"),
        }
    }
    eprintln!("{done} done, {refused} retries, rejects and limits, {trapped} traps");
    assert!(
        done > 0 && refused > 0 && trapped > 0,
        "the bytes are too much alike"
    );
}
