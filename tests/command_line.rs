//! The commands as a user types them: what they print and how they exit.

use std::time::{Duration, Instant};

use crate::support::program::Place;
use crate::support::rabbitmq::shared_url;

const ROOM: &str = "[limits]\noutput = \"16MiB\"\nmemory = \"256MiB\"\n";

fn random_bytes(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..size).map(|_| random.u8(..)).collect()
}

#[test]
fn run_does_one_task_without_a_queue_and_prints_its_output() {
    let place = Place::new();
    let began = Instant::now();
    let ended = place.run(&["run", "dots", "Hello..."]).exits(0);
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(ended.text().contains("3 dots"), "{}", ended.text());
    assert!(
        !place.path().join("scutwork.db").exists(),
        "run made a queue"
    );
}

#[test]
fn run_takes_a_payload_from_a_file_from_stdin_and_of_any_bytes() {
    let place = Place::new();
    place.plugin("echo", ROOM);
    for size in [0, 1, 100_000, 10_000_000] {
        let payload = random_bytes(size);
        place.file("payload.bin", &payload);
        let from_file = place.run(&["run", "echo", "@payload.bin"]).exits(0);
        assert!(from_file.stdout == payload, "{size} bytes from a file");
        let from_stdin = place.run_with(&["run", "echo", "-"], &payload).exits(0);
        assert!(from_stdin.stdout == payload, "{size} bytes from stdin");
    }
    assert_eq!(
        place
            .run(&["run", "echo", "-v is a payload"])
            .exits(0)
            .text(),
        "-v is a payload"
    );
    assert_eq!(place.run(&["run", "echo"]).exits(0).text(), "");
}

#[test]
fn run_takes_a_file_that_lies_anywhere() {
    let place = Place::new();
    let wasm = place.file("elsewhere.wasm", scutwork::plugin::embedded::echo());
    let path = wasm.to_str().unwrap();
    assert_eq!(place.run(&["run", path, "hi"]).exits(0).text(), "hi");
    assert_eq!(
        place
            .run(&["run", "./elsewhere.wasm", "hi"])
            .exits(0)
            .text(),
        "hi"
    );
}

#[test]
fn run_says_why_a_task_is_not_done_and_exits_1() {
    let place = Place::new();
    place
        .plugin("picky", "")
        .plugin("flaky", "")
        .plugin("endless", "[limits]\ncpu = \"200ms\"\n");
    place.plugin("glutton", "[limits]\nmemory = \"8MiB\"\n");
    place
        .run(&["run", "picky", "no"])
        .exits(1)
        .says(&["reject"]);
    place.run(&["run", "flaky", "2"]).exits(1).says(&["retry"]);
    place
        .run(&["run", "endless"])
        .exits(1)
        .says(&["limits.cpu", "200ms", "endless.toml"]);
    place
        .run(&["run", "glutton"])
        .exits(1)
        .says(&["limits.memory", "8MiB", "glutton.toml"]);
}

#[test]
fn run_gives_json_that_a_program_can_read() {
    let place = Place::new();
    place.plugin("echo", "").plugin("picky", "");
    let done: serde_json::Value = serde_json::from_slice(
        &place
            .run(&["run", "echo", "hi", "-o", "json"])
            .exits(0)
            .stdout,
    )
    .unwrap();
    assert_eq!(
        (&done["outcome"], &done["body"]["text"]),
        (&"done".into(), &"hi".into())
    );
    let dead: serde_json::Value = serde_json::from_slice(
        &place
            .run(&["run", "picky", "hi", "-o", "json"])
            .exits(1)
            .stdout,
    )
    .unwrap();
    assert_eq!(dead["reason"], "rejected");
}

#[test]
fn a_plugin_that_is_not_there_is_named_with_those_that_are() {
    let place = Place::new();
    place.plugin("echo", "");
    place
        .run(&["run", "ecko", "hi"])
        .exits(66)
        .says(&["ecko", "plugins", "echo"]);
    place
        .run(&["run", "gone.wasm", "hi"])
        .exits(66)
        .says(&["gone.wasm"]);
}

#[test]
fn a_plugin_name_cannot_lead_out_of_the_directory() {
    let place = Place::new();
    for name in ["../../etc/passwd", "a b", "", ".hidden"] {
        place
            .run(&["submit", name, "hi"])
            .exits(2)
            .says(&["plugin name"]);
    }
    assert!(
        !place.path().join("scutwork.db").exists(),
        "a refused submit made a queue"
    );
}

#[test]
fn a_broker_url_that_means_nothing_is_refused_before_anything_starts() {
    let place = Place::new();
    for url in [
        "rabbit",
        "http://localhost",
        "sqlite:",
        "amqp://",
        "amqp://h:99999/",
        "amqp://h:x/",
    ] {
        let ended = place.run(&["worker", "--broker", url]).exits(78);
        assert!(
            ended.stderr.contains("amqp://") || ended.stderr.contains("sqlite:"),
            "{}",
            ended.stderr
        );
    }
    let secret = place
        .run(&["worker", "--broker", "amqp://me:hunter2@:bad"])
        .exits(78);
    assert!(!secret.stderr.contains("hunter2"), "{}", secret.stderr);
}

#[test]
fn a_broker_that_is_down_exits_69_and_names_it() {
    let place = Place::new();
    // Nobody listens there: the port was free a moment ago and is below those that are given out.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://guest:hunter2@{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in [
        &["worker"][..],
        &["submit", "dots", "."],
        &["submit", "dots", ".", "--wait"],
    ] {
        let ended = place
            .run(&[arguments, &["--broker", &url]].concat())
            .exits(69);
        let ended = ended.says(&["127.0.0.1"]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    place
        .run(&["submit", "dots", "--broker", "sqlite:no/such/folder/q.db"])
        .exits(69)
        .says(&["no/such/folder"]);
}

#[test]
fn bench_says_what_it_could_not_run_and_why() {
    let place = Place::new();
    let nobody = "amqp://127.0.0.1:1";
    place
        .run(&["bench", "amqp"])
        .exits(2)
        .says(&["NOT RUN: amqp", "--broker amqp://"]);
    place
        .run(&["bench", "amqp", "--broker", nobody])
        .exits(69)
        .says(&["NOT RUN: amqp", "127.0.0.1:1"]);
    place
        .run(&["bench", "sandbox", "--plot", "plot.svg"])
        .exits(2)
        .says(&["bench curves --plot"]);
}

#[test]
fn bench_shows_what_it_measured_of_both_for_programs_too() {
    let place = Place::new();
    let run = place
        .run(&["bench", "sandbox", "--quick", "--runs", "2", "-o", "json"])
        .exits(0);
    let shown: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(shown["machine"]["settings"].is_string(), "{shown}");
    assert_eq!(shown["not_run"], serde_json::json!([]));
    let row = &shown["rows"][0];
    for figures in [&row["ours"], &row["beside"]["figures"]] {
        assert_eq!(figures["values"].as_array().unwrap().len(), 2, "{row}");
        let value = |name: &str| figures[name].as_f64().unwrap();
        assert!(
            0.0 < value("min") && value("min") <= value("median"),
            "{row}"
        );
        assert!(value("median") <= value("max"), "{row}");
    }
    assert!(row["compared"].as_f64().unwrap() > 0.0, "{row}");
}

#[test]
fn a_wrong_password_exits_69_and_one_from_a_file_is_used() {
    let place = Place::new();
    let right = shared_url();
    let wrong = right.replacen("guest:guest@", "guest:hunter2@", 1);
    assert_ne!(right, wrong);
    let ended = place
        .run(&["submit", "dots", ".", "--broker", &wrong])
        .exits(69)
        .says(&["guest", "password"]);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let missing = format!("{right}/nowhere");
    place
        .run(&["submit", "dots", ".", "--broker", &missing])
        .exits(69)
        .says(&["nowhere"]);
    place.file("password", "guest\n");
    place.file(
        "scutwork.toml",
        "queue = \"passwords\"\n[rabbitmq]\npassword_file = \"password\"\n",
    );
    place
        .run(&["submit", "dots", ".", "--broker", &wrong])
        .exits(0);
    std::fs::remove_file(place.path().join("password")).unwrap();
    place
        .run(&["submit", "dots", ".", "--broker", &wrong])
        .exits(66)
        .says(&["password"]);
}

#[test]
fn a_plugin_directory_that_does_not_exist_is_named() {
    let place = Place::new();
    for arguments in [
        &["worker"][..],
        &["up"],
        &["plugin", "list"],
        &["run", "dots"],
    ] {
        place
            .run(&[arguments, &["--plugins", "no-such-directory"]].concat())
            .exits(66)
            .says(&["no-such-directory"]);
    }
}

#[test]
fn a_config_file_is_checked_before_anything_starts_with_errors_that_point_at_the_line() {
    let place = Place::new();
    let cases = [
        (
            "quue = \"tasks\"\n",
            &["scutwork.toml:1", "quue", "queue"][..],
        ),
        (
            "[worker]\n\nslotz = 3\n",
            &["scutwork.toml:3", "slotz", "slots"],
        ),
        ("[worker]\ngrace = 5\n", &["scutwork.toml:2", "grace"]),
        (
            "[limits]\nmemory = \"lots\"\n",
            &["scutwork.toml:2", "64MiB"],
        ),
        ("[worker]\nprefetch = 0\n", &["prefetch"]),
        ("queue = \"amq.x\"\n", &["queue name", "amq."]),
        ("[worker]\nsettlement = \"native\"\n", &["native"]),
        ("[worker\n", &["scutwork.toml:1"]),
    ];
    for (text, says) in cases {
        place.file("scutwork.toml", text);
        place.run(&["up"]).exits(78).says(says);
    }
    assert!(
        !place.path().join("scutwork.db").exists(),
        "something started"
    );
    place
        .run(&["up", "--config", "other.toml"])
        .exits(66)
        .says(&["other.toml"]);
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let place = Place::new();
    place.file(
        "scutwork.toml",
        "broker = \"sqlite:from-file.db\"\nqueue = \"file\"\n",
    );
    place
        .run(&["submit", "dots", "."])
        .exits(0)
        .says(&["queue file", "from-file.db"]);
    place
        .run(&[
            "submit",
            "dots",
            ".",
            "--queue",
            "flag",
            "--broker",
            "sqlite:from-flag.db",
        ])
        .exits(0)
        .says(&["queue flag", "from-flag.db"]);
}

#[test]
fn plugin_list_shows_what_serves_and_why_the_rest_does_not() {
    let place = Place::new();
    place.plugin("echo", "[limits]\nmemory = \"8MiB\"\n");
    let ended = place.run(&["plugin", "list"]).exits(0);
    assert!(
        ended.text().contains("echo") && ended.text().contains("dots"),
        "{}",
        ended.text()
    );
    place.file("plugins/empty.wasm", "");
    std::fs::create_dir(place.path().join("plugins/x.wasm")).unwrap();
    place.file("plugins/bad name.wasm", "");
    place.file("plugins/native.cwasm", "");
    let ended = place.run(&["plugin", "list"]).exits(1);
    assert!(ended.text().contains("echo"), "{}", ended.text());
    let ended = ended.says(&[
        "empty.wasm",
        "x.wasm",
        "directory",
        "bad name.wasm",
        "native.cwasm",
    ]);
    assert_eq!(ended.stderr.lines().count(), 4, "{}", ended.stderr);
    let listed: serde_json::Value =
        serde_json::from_slice(&place.run(&["plugin", "list", "-o", "json"]).exits(1).stdout)
            .unwrap();
    assert_eq!(listed["plugins"].as_array().unwrap().len(), 2);
    assert_eq!(listed["refused"].as_array().unwrap().len(), 4);
}

#[test]
fn a_payload_over_the_limit_is_refused_before_it_is_sent() {
    let place = Place::new();
    place.file("scutwork.toml", "[worker]\nmax_payload = \"1KiB\"\n");
    place.file("big", [b'x'; 1025]);
    place
        .run(&["submit", "dots", "@big"])
        .exits(2)
        .says(&["1025 bytes", "1KiB", "max_payload"]);
    place
        .run(&["run", "dots", "@big"])
        .exits(2)
        .says(&["1025 bytes", "1KiB", "max_payload"]);
    place
        .run(&["submit", "dots", "@none"])
        .exits(66)
        .says(&["none"]);
}

#[test]
fn usage_that_makes_no_sense_exits_2() {
    let place = Place::new();
    for arguments in [
        &["submit"][..],
        // Of nothing there are no lines, and nothing is what would be submitted.
        &["submit", "dots", "--each-line"],
        &["submit", "dots", ".", "--timeout", "1s"],
        &["submit", "dots", ".", "--id", "a", "--count", "2"],
        &["submit", "dots", ".", "--delay", "31days"],
        &["submit", "dots", ".", "--header", "novalue"],
        &["submit", "dots", ".", "--queue", "a", "--queue", "b"],
        &["up", "--broker", "amqp://localhost"],
        &["frobnicate"],
    ] {
        place.run(arguments).exits(2);
    }
}

#[test]
fn the_demo_accounts_for_every_task_and_leaves_nothing_behind() {
    let place = Place::new();
    let ended = place.run(&["demo"]).exits(0);
    let text = ended.text();
    assert!(
        text.contains("12 tasks submitted: 8 done, 4 dead"),
        "{text}"
    );
    for word in [
        "retry",
        "rejected",
        "cpu-limit",
        "memory-limit",
        "bad-task",
        "parked",
        "echo.wasm serves",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["plugins"], "the demo left something behind");
}
