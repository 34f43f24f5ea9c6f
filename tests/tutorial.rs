//! RabbitMQ's own tutorial programs, served unchanged.

use std::process::Command;

use crate::support::program::Place;
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4};

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

/// As `new_task.js` is today.
const NEW_TASK_JS: &str = r#"
const amqp = require('amqplib/callback_api');
amqp.connect('NODE', function(error0, connection) {
  if (error0) { throw error0; }
  connection.createChannel(function(error1, channel) {
    if (error1) { throw error1; }
    var queue = 'task_queue';
    var msg = process.argv.slice(1).join(' ') || "Hello World!";
    channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    channel.sendToQueue(queue, Buffer.from(msg), { persistent: true });
    console.log(" [x] Sent '%s'", msg);
  });
  setTimeout(function() { connection.close(); process.exit(0); }, 500);
});
"#;

#[test]
fn new_task_in_javascript_is_served() {
    let Ok(modules) = std::env::var("SCUTWORK_TEST_NODE_MODULES") else {
        panic!("NOT RUN: needs a folder with amqplib in SCUTWORK_TEST_NODE_MODULES; use tests/run");
    };
    let place = Place::new();
    for url in [shared_url(), shared_url_of_4()] {
        let mut worker = place.worker(&url, "task_queue_of_js", &[]);
        let program = NEW_TASK_JS
            .replace("NODE", &url)
            .replace("task_queue", "task_queue_of_js");
        let output = Command::new("node")
            .env("NODE_PATH", &modules)
            .args(["-e", &program, "From JavaScript."])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        worker.wait_for("INFO done");
    }
}

/// As `new_task.go` is today, but for two constants that Debian's version of the client has not yet.
const NEW_TASK_GO: &str = r#"
package main

import (
	"context"
	"log"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func failOnError(err error, msg string) {
	if err != nil {
		log.Panicf("%s: %s", msg, err)
	}
}

func main() {
	conn, err := amqp.Dial("NODE")
	failOnError(err, "Failed to connect to RabbitMQ")
	defer conn.Close()

	ch, err := conn.Channel()
	failOnError(err, "Failed to open a channel")
	defer ch.Close()

	q, err := ch.QueueDeclare(
		"task_queue", // name
		true,         // durable
		false,        // delete when unused
		false,        // exclusive
		false,        // no-wait
		amqp.Table{
			"x-queue-type": "quorum",
		},
	)
	failOnError(err, "Failed to declare a queue")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	body := bodyFrom(os.Args)
	err = ch.PublishWithContext(ctx,
		"",     // exchange
		q.Name, // routing key
		false,  // mandatory
		false,
		amqp.Publishing{
			DeliveryMode: amqp.Persistent,
			ContentType:  "text/plain",
			Body:         []byte(body),
		})
	failOnError(err, "Failed to publish a message")
	log.Printf(" [x] Sent %s", body)
}

func bodyFrom(args []string) string {
	var s string
	if (len(args) < 2) || os.Args[1] == "" {
		s = "hello"
	} else {
		s = strings.Join(args[1:], " ")
	}
	return s
}
"#;

#[test]
fn new_task_in_go_is_served() {
    let Ok(packages) = std::env::var("SCUTWORK_TEST_GOPATH") else {
        panic!("NOT RUN: needs a GOPATH with amqp091 in SCUTWORK_TEST_GOPATH; use tests/run");
    };
    let place = Place::new();
    for url in [shared_url(), shared_url_of_4()] {
        let mut worker = place.worker(&url, "task_queue_of_go", &[]);
        // The tutorial's URL ends in a slash, by which it means the virtual host `/`.
        let program = NEW_TASK_GO
            .replace("NODE", &format!("{url}/"))
            .replace("task_queue", "task_queue_of_go");
        let program = place.file("new_task.go", program);
        let output = Command::new("go")
            .env("GO111MODULE", "off")
            .env("GOPATH", &packages)
            .env("GOCACHE", place.path().join("go-cache"))
            .arg("run")
            .args([program.as_os_str(), "From Go.".as_ref()])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        worker.wait_for("INFO done");
    }
}

/// The management plugin serves its own client, which is run as it comes.
const RABBITMQADMIN: &str = r#"
import subprocess, sys, urllib.request
page = urllib.request.urlopen("http://127.0.0.1:PORT/cli/rabbitmqadmin").read()
command = [sys.executable, "-", "--host", "127.0.0.1", "--port", "PORT"] + sys.argv[1:]
sys.exit(subprocess.run(command, input=page).returncode)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmqadmin_publish_is_served() {
    let (node, management) = Node::start_with_management().await;
    let place = Place::new();
    place.plugin("echo", "");
    let mut worker = place.worker(&node.url(), "admin", &[]);
    let program = RABBITMQADMIN.replace("PORT", &management.to_string());
    python(
        &program,
        &["publish", "routing_key=admin", "payload=Hello."],
    );
    assert!(worker.wait_for("INFO done").contains("dots"));
    let echo = r#"properties={"type":"echo","delivery_mode":2}"#;
    python(
        &program,
        &["publish", "routing_key=admin", "payload=x", echo],
    );
    assert!(worker.wait_for("INFO done").contains("echo"));
}
