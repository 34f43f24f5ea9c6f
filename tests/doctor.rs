//! `scutwork doctor`: what it finds in arrangements that are sound and in some that are not.

use serde_json::Value;

use crate::support::program::{Ended, Place};
use crate::support::rabbitmq::{Cluster, Node, shared_url, shared_url_of_4, version};

/// Runs doctor on a broker, and gives its lines.
fn doctor(place: &Place, broker: &str, queue: &str, code: i32) -> String {
    place
        .run(&["doctor", "--broker", broker, "--queue", queue])
        .exits(code)
        .text()
}

/// The one line that begins like this.
fn line<'a>(text: &'a str, verdict: &str, check: &str) -> &'a str {
    let mut found = text.lines().filter(|line| {
        line.strip_prefix(verdict)
            .is_some_and(|rest| rest.trim_start().starts_with(check))
    });
    found
        .next()
        .unwrap_or_else(|| panic!("no line {verdict} {check} in:\n{text}"))
}

fn json(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// Messages and arguments on a queue that a stranger made.
async fn stranger(url: &str, queue: &str, durable: bool, arguments: lapin::types::FieldTable) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions {
        durable,
        ..Default::default()
    };
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

#[test]
fn a_sound_embedded_queue_passes_and_is_not_made_by_looking() {
    let place = Place::new();
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    assert!(line(&text, "ok", "queue file").contains("first use makes it"));
    line(&text, "ok", "disk");
    line(&text, "ok", "clock");
    line(&text, "ok", "cache");
    assert!(!text.contains("FAIL"), "{text}");
    assert!(
        !place.path().join("queue.db").exists(),
        "doctor made a queue"
    );
    place
        .run(&["submit", "dots", "--broker", "sqlite:queue.db"])
        .exits(0);
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    assert!(line(&text, "ok", "queue file").contains("is sound"));
}

#[test]
fn a_damaged_or_foreign_file_fails() {
    let place = Place::new();
    place
        .run(&[
            "submit",
            "dots",
            "--count",
            "2000",
            "--broker",
            "sqlite:queue.db",
        ])
        .exits(0);
    let path = place.path().join("queue.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // Behind the schema, where opening it does not look.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let text = doctor(&place, "sqlite:queue.db", "work", 1);
    assert!(
        line(&text, "FAIL", "queue file").contains("damaged"),
        "{text}"
    );
    place.file("letter.txt", "not a database at all, by any means");
    let text = doctor(&place, "sqlite:letter.txt", "work", 1);
    line(&text, "FAIL", "queue file");
}

#[test]
fn a_refused_plugin_fails_and_a_lowered_limit_warns() {
    let place = Place::new();
    place.plugin("echo", "[limits]\nmemory = \"2GiB\"\n");
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    assert!(line(&text, "warn", "plugins").contains("echo"), "{text}");
    place.file("plugins/broken.wasm", "no wasm");
    let text = doctor(&place, "sqlite:queue.db", "work", 1);
    assert!(
        line(&text, "FAIL", "plugins").contains("broken.wasm"),
        "{text}"
    );
    let ended = place
        .run(&["doctor", "--plugins", "nowhere", "-o", "json"])
        .exits(1);
    let found = json(&ended);
    assert_eq!(found["failures"], 1, "{found}");
    let checks = found["checks"].as_array().unwrap();
    let failed = checks.iter().find(|one| one["verdict"] == "fail").unwrap();
    assert_eq!(failed["check"], "plugins");
    assert!(failed["finding"].as_str().unwrap().contains("nowhere"));
}

#[test]
fn memory_that_is_not_there_warns() {
    let place = Place::new();
    place.plugin("echo", "[limits]\nmemory = \"1GiB\"\n");
    place.file("scutwork.toml", "[worker]\nslots = 4000\n");
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    assert!(
        line(&text, "warn", "memory").contains("4000 slots"),
        "{text}"
    );
}

#[test]
fn payloads_that_memory_cannot_hold_unsettled_warn() {
    let place = Place::new();
    place.file(
        "scutwork.toml",
        "[worker]\nslots = 1\nprefetch = 60000\nmax_payload = \"1GiB\"\n",
    );
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    let told = line(&text, "warn", "memory");
    assert!(told.contains("60000 unsettled payloads"), "{told}");
    assert!(told.contains("lower worker.prefetch"), "{told}");
}

#[test]
fn what_is_held_ahead_is_counted_where_the_worker_decides_it() {
    let place = Place::new();
    place.file(
        "scutwork.toml",
        "[worker]\nslots = 20\nmax_payload = \"900GiB\"\n",
    );
    let text = doctor(&place, "sqlite:queue.db", "work", 0);
    let told = line(&text, "warn", "memory");
    let held = "20 unsettled payloads of 900GiB each and 32MiB held ahead";
    assert!(told.contains(held), "{told}");
    assert!(told.contains("lower worker.slots"), "{told}");
}

#[test]
fn a_clock_that_went_back_fails() {
    let place = Place::new();
    place
        .run(&["submit", "dots", "--broker", "sqlite:queue.db"])
        .exits(0);
    let file = std::fs::File::open(place.path().join("queue.db")).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(7200);
    file.set_modified(later).unwrap();
    let text = doctor(&place, "sqlite:queue.db", "work", 1);
    assert!(line(&text, "FAIL", "clock").contains("went back"), "{text}");
}

#[test]
fn each_versions_bounds_are_told() {
    let (place, three, four) = (Place::new(), shared_url(), shared_url_of_4());
    let told = |url: &str| {
        let text = doctor(&place, url, "doctor.version", 0);
        line(&text, "ok", "version").to_owned()
    };
    assert!(told(&three).ends_with(&version(&three)));
    let of_4 = told(&four);
    assert!(
        of_4.contains(&version(&four)) && of_4.contains("16MiB"),
        "{of_4}"
    );
}

#[test]
fn a_broker_that_is_not_there_fails() {
    let text = doctor(&Place::new(), "amqp://127.0.0.1:1", "work", 1);
    assert!(
        line(&text, "FAIL", "broker").contains("nothing listens"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_rabbitmq_passes_and_looking_leaves_nothing_behind() {
    let (place, url) = (Place::new(), shared_url());
    let text = doctor(&place, &url, "doctor.sound", 0);
    line(&text, "ok", "broker");
    assert!(line(&text, "ok", "version").contains("RabbitMQ "), "{text}");
    line(&text, "ok", "permissions");
    line(&text, "ok", "consumer timeout");
    assert!(
        line(&text, "ok", "queue").contains("not there yet"),
        "{text}"
    );
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default())
        .await
        .unwrap();
    for name in [
        "",
        ".dead",
        ".suspects",
        ".paused",
        ".delay.0",
        ".delay.23",
        ".delay.due",
    ] {
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let name = format!("doctor.sound{name}");
        let found = channel.queue_declare(
            name.as_str().into(),
            options,
            lapin::types::FieldTable::default(),
        );
        assert!(found.await.is_err(), "doctor made {name}");
    }
    place
        .run(&[
            "submit",
            "dots",
            "--broker",
            &url,
            "--queue",
            "doctor.sound",
        ])
        .exits(0);
    let text = doctor(&place, &url, "doctor.sound", 0);
    assert!(line(&text, "ok", "queue").contains("quorum"), "{text}");
    let ended = place
        .run(&[
            "queue",
            "status",
            "--broker",
            &url,
            "--queue",
            "doctor.sound",
            "-o",
            "json",
        ])
        .exits(0);
    let status = json(&ended);
    assert_eq!((&status["ready"], &status["dead"]), (&1.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_told_with_what_it_means() {
    let (place, url) = (Place::new(), shared_url());
    stranger(
        &url,
        "doctor.classic",
        true,
        lapin::types::FieldTable::default(),
    )
    .await;
    let text = doctor(&place, &url, "doctor.classic", 0);
    let told = line(&text, "warn", "queue");
    assert!(
        told.contains("no quorum queue") && told.contains("crashes"),
        "{told}"
    );
    let mut bounded = lapin::types::FieldTable::default();
    for (name, value) in [
        (
            "x-queue-type",
            lapin::types::AMQPValue::LongString("quorum".into()),
        ),
        ("x-max-length", lapin::types::AMQPValue::LongInt(10)),
    ] {
        bounded.insert(name.into(), value);
    }
    stranger(&url, "doctor.bounded", true, bounded).await;
    let text = doctor(&place, &url, "doctor.bounded", 0);
    assert!(line(&text, "warn", "queue").contains("bounded"), "{text}");
    stranger(
        &url,
        "doctor.kept.dead",
        true,
        lapin::types::FieldTable::default(),
    )
    .await;
    let text = doctor(&place, &url, "doctor.kept", 0);
    let told = line(&text, "warn", "queue");
    assert!(
        told.contains("`doctor.kept.dead` is no quorum queue"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_a_node_that_is_down_fails_until_the_node_is_forgotten() {
    let place = Place::new();
    let mut cluster = Cluster::start(2).await;
    let urls = cluster.urls();
    // A durable classic queue is on the node that it was declared at, and on no other.
    let classic = lapin::types::FieldTable::default();
    stranger(&urls[0], "doctor.down", true, classic).await;
    cluster.nodes()[0].kill().await;
    let text = doctor(&place, &urls[1], "doctor.down", 1);
    let told = line(&text, "FAIL", "queue");
    assert!(
        told.contains("`doctor.down` is on a node that is down"),
        "{told}"
    );
    // As it advises for one that is gone for good.
    let gone = cluster.nodes()[0].name();
    cluster.nodes()[1].control(&["forget_cluster_node", &gone]);
    let text = doctor(&place, &urls[1], "doctor.down", 0);
    let told = line(&text, "ok", "queue");
    assert!(told.contains("not there yet"), "{told}");
}

#[test]
fn a_plugin_that_outlasts_the_consumer_timeout_warns_in_doctor_and_worker() {
    let (place, url) = (Place::new(), shared_url());
    place.plugin("echo", "[limits]\ntimeout = \"2m\"\n");
    place.file("scutwork.toml", "[rabbitmq]\nconsumer_timeout = \"1m\"\n");
    let text = doctor(&place, &url, "doctor.timeout", 0);
    let told = line(&text, "warn", "consumer timeout");
    assert!(told.contains("`echo` may run for 2m"), "{told}");
    let mut worker = place.start(&["worker", "--broker", &url, "--queue", "doctor.timeout"]);
    worker.wait_for("`echo` may run for 2m");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_permission_is_named_with_the_line_that_grants_it() {
    let place = Place::new();
    let user = |name: &str| serde_json::json!({ "name": name, "password": name, "tags": "" });
    let permission = |name: &str, configure: &str, write: &str, read: &str| {
        serde_json::json!({
            "user": name, "vhost": "/", "configure": configure, "write": write, "read": read,
        })
    };
    let all = r"^work(\.(dead|suspects|paused|delay\..+))?$";
    let publish = r"^amq\.default$";
    let definitions = serde_json::json!({
        "vhosts": [{ "name": "/" }],
        "users": [user("whole"), user("nothing"), user("reader"), user("parked")],
        "permissions": [
            permission("whole", all, publish, all),
            permission("nothing", "^$", "^$", "^$"),
            permission("reader", "^$", "^$", "^work$"),
            permission("parked", "^work(\\.(dead|suspects|paused))?$", publish, all),
        ],
    });
    let file = place.file("definitions.json", definitions.to_string());
    let node = Node::start_with(&format!("load_definitions = {}\n", file.display())).await;
    let host = node.url().replace("amqp://", "");
    let examine = |user: &str, code| {
        let url = format!("amqp://{user}:{user}@{host}");
        doctor(&place, &url, "work", code)
    };
    line(&examine("whole", 0), "ok", "permissions");
    let denied = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("FAIL  permissions"))
            .filter_map(|line| line.split(" may not ").nth(1)?.split(':').next())
            .map(str::to_owned)
            .collect()
    };
    let text = examine("nothing", 1);
    assert!(
        text.contains("rabbitmqctl set_permissions -p '/' 'nothing'"),
        "{text}"
    );
    let of_work: Vec<String> = denied(&text)
        .into_iter()
        .filter(|denied| denied.ends_with("`work`"))
        .collect();
    assert_eq!(of_work, ["configure `work`", "read `work`"]);
    let text = examine("reader", 1);
    let missing = denied(&text);
    assert!(!missing.contains(&"read `work`".to_owned()), "{text}");
    assert!(
        missing.contains(&"write `amq.default`".to_owned()),
        "{text}"
    );
    assert_eq!(
        denied(&examine("parked", 1)),
        ["configure `work.delay.0`", "configure `work.delay.23`"]
    );
}
