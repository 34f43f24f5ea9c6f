//! RabbitMQ's own tutorial programs, served unchanged.

use std::process::Command;

use crate::support::program::Place;
use crate::support::rabbitmq::shared_url;

/// Runs a Python program with the real pika against a node; `NODE` in it stands for the node's URL.
fn python(program: &str, arguments: &[&str]) {
    let Ok(python) = std::env::var("SCUTWORK_TEST_PYTHON") else {
        panic!("NOT RUN: needs a Python with pika in SCUTWORK_TEST_PYTHON; use tests/run");
    };
    let program = program.replace("NODE", &shared_url());
    let output = Command::new(python)
        .args(["-c", &program])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// As in the tutorial's notebook: a queue declared without arguments, and a message with no
/// properties at all.
const NOTEBOOK: &str = r#"
import pika
connection = pika.BlockingConnection(pika.URLParameters("NODE"))
channel = connection.channel()
channel.queue_declare(queue='hello')
channel.basic_publish(exchange='', routing_key='hello', body="Hello World!.....")
connection.close()
"#;

/// As `new_task.py` is today: a durable quorum queue, and persistent messages.
const NEW_TASK: &str = r#"
import pika, sys
connection = pika.BlockingConnection(pika.URLParameters("NODE"))
channel = connection.channel()
channel.queue_declare(queue='task_queue', durable=True, arguments={"x-queue-type": "quorum"})
message = ' '.join(sys.argv[1:]) or "Hello World!"
channel.basic_publish(
    exchange='',
    routing_key='task_queue',
    body=message,
    properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent))
connection.close()
"#;

#[test]
fn the_notebook_s_hello_is_served_from_a_queue_declared_without_arguments() {
    let place = Place::new();
    python(NOTEBOOK, &[]);
    let mut worker = place.worker(&shared_url(), "hello", &[]);
    let done = worker.wait_for("INFO done");
    assert!(
        done.contains("plugin=\"dots\"") || done.contains("plugin=dots"),
        "{done}"
    );
    // Again, with the worker there first.
    python(NOTEBOOK, &[]);
    worker.wait_for("INFO done");
}

#[test]
fn new_task_is_served_whoever_declares_the_queue_first() {
    let place = Place::new();
    let mut worker = place.worker(&shared_url(), "task_queue", &[]);
    for message in ["First message.", "Second message..", "Third message..."] {
        python(NEW_TASK, &[message]);
    }
    for _ in 0..3 {
        worker.wait_for("INFO done");
    }
}
