//! Whether a RabbitMQ takes us, knows what we need, and has our queues as we would make them.

use super::finding::Finding;
use crate::broker::rabbitmq::examination::{Denied, Examination, QueueState, Right};
use crate::broker::rabbitmq::{Greeting, RabbitMqOptions};
use crate::name::QueueName;
use crate::units::show_size;

/// The oldest version with what delays are made of: at-least-once dead-lettering of quorum queues.
const OLDEST: (u32, u32) = (3, 10);

/// What version 4 takes at most in one message unless it is told otherwise, in bytes.
const LARGEST_SINCE_4: u64 = 16 << 20;

pub(super) async fn check(
    options: &RabbitMqOptions,
    queues: &[QueueName],
    max_payload: u64,
) -> Vec<Finding> {
    let examined = match Examination::of(options.clone(), queues).await {
        Ok(examined) => examined,
        Err(error) => return vec![Finding::fail_as_told("broker", error)],
    };
    let mut findings = vec![Finding::ok(
        "broker",
        format!("{} takes user `{}`", examined.name, examined.user),
    )];
    findings.push(match &examined.greeting {
        Ok(greeting) => version(greeting, max_payload),
        Err(error) => Finding::warn(
            "version",
            format!("the broker did not say which it is: {error}"),
            "check that it is RabbitMQ 3.10 or newer",
        ),
    });
    findings.extend(rights(&examined, queues));
    findings.extend(
        examined
            .queues
            .iter()
            .map(|(name, state)| queue(name, state)),
    );
    findings
}

fn version(greeting: &Greeting, max_payload: u64) -> Finding {
    let Greeting { product, version } = greeting;
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let found = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if product != "RabbitMQ" {
        return Finding::warn(
            "version",
            format!("{product} {version} is not RabbitMQ, which is all that is tested"),
            "try delays and dead letters out before you trust it",
        );
    }
    if found < OLDEST {
        return Finding::fail(
            "version",
            format!("RabbitMQ {version} cannot keep delayed tasks safe"),
            format!("update it to {}.{} or newer", OLDEST.0, OLDEST.1),
        );
    }
    if found.0 >= 4 && max_payload > LARGEST_SINCE_4 {
        return Finding::ok(
            "version",
            format!(
                "RabbitMQ {version}; it refuses messages over {} unless its max_message_size is raised",
                show_size(LARGEST_SINCE_4)
            ),
        );
    }
    Finding::ok("version", format!("RabbitMQ {version}"))
}

fn rights(examined: &Examination, queues: &[QueueName]) -> Vec<Finding> {
    if examined.denied.is_empty() {
        return vec![Finding::ok(
            "permissions",
            format!("user `{}` has all that are needed", examined.user),
        )];
    }
    let grant = grant(&examined.user, &examined.vhost, queues);
    examined
        .denied
        .iter()
        .map(|denied| {
            Finding::fail(
                "permissions",
                format!(
                    "user `{}` may not {} `{}`: {}",
                    examined.user,
                    denied.right.as_str(),
                    denied.name,
                    meaning(denied)
                ),
                format!("this grants all, in place of what the user had: {grant}"),
            )
        })
        .collect()
}

fn meaning(denied: &Denied) -> &'static str {
    let name = denied.name.as_str();
    if name == "amq.default" {
        "nothing can be submitted, retried, dead-lettered or replied"
    } else if name.ends_with(".dead") {
        "dead letters have nowhere to go, or cannot be looked at"
    } else if name.ends_with(".paused") {
        "the queue cannot be paused or resumed"
    } else if name.contains(".delay.") {
        "retries and delayed tasks have nowhere to wait"
    } else if denied.right == Right::Configure {
        "the queue is not there and cannot be made"
    } else {
        "no task can be taken from it"
    }
}

/// The command that grants everything for these queues.
fn grant(user: &str, vhost: &str, queues: &[QueueName]) -> String {
    let names: Vec<String> = queues.iter().map(|queue| escaped(queue.as_str())).collect();
    let names = names.join("|");
    let ours = format!("({names})(\\.(dead(\\.look)?|suspects|paused|delay\\..+))?");
    format!(
        "rabbitmqctl set_permissions -p '{vhost}' '{user}' '^{ours}$' '^amq\\.default$' '^{ours}$'"
    )
}

/// A name as a regular expression that matches it alone.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for character in name.chars() {
        if !(character.is_alphanumeric() || matches!(character, '_' | '-')) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn queue(name: &str, state: &QueueState) -> Finding {
    const CHECK: &str = "queue";
    match state {
        QueueState::Absent => Finding::ok(
            CHECK,
            format!("`{name}` is not there yet; the first use makes a durable quorum queue"),
        ),
        QueueState::Down => Finding::fail(
            CHECK,
            format!(
                "`{name}` is on a node that is down: no task can be taken from it or put on it"
            ),
            "start that node; where it is gone for good, `rabbitmqctl forget_cluster_node` it, with all that is on it, and the first use makes a durable quorum queue",
        ),
        QueueState::AsWanted => Finding::ok(CHECK, format!("`{name}` is a durable quorum queue")),
        QueueState::Unseen(said) => Finding::warn(
            CHECK,
            format!("`{name}` cannot be compared with what it should be: {said}"),
            "grant the user the right to configure it, for this check at least",
        ),
        QueueState::Differs(argument, said) => {
            let (means, fix) = difference(argument);
            Finding::warn(CHECK, format!("`{name}` {means} ({said})"), fix)
        }
    }
}

/// What it means that a queue has another value of an argument than a plain quorum queue.
fn difference(argument: &str) -> (&'static str, &'static str) {
    match argument {
        "x-queue-type" => (
            "is no quorum queue: crashes of workers are not counted beyond the last one, so that a task that kills them is not stopped, and it has no copies on other nodes",
            "use a new queue, or let this one run empty, delete it and let a worker make it again",
        ),
        "durable" => (
            "is not durable: its tasks are gone when the broker restarts",
            "use a new queue, or let this one run empty, delete it and let a worker make it again",
        ),
        "exclusive" | "auto_delete" => (
            "goes away with its users, and its tasks with it",
            "use a new queue, or let this one run empty, delete it and let a worker make it again",
        ),
        "x-message-ttl" | "x-expires" => (
            "forgets tasks, or itself, after a time",
            "see to it that this is meant, or use a queue without it",
        ),
        "x-max-length" | "x-max-length-bytes" | "x-overflow" => (
            "is bounded, and a full one refuses tasks or drops the oldest",
            "see to it that this is meant, and that x-overflow is reject-publish",
        ),
        "x-dead-letter-exchange" | "x-dead-letter-routing-key" => (
            "has a dead-letter policy of its own",
            "if retries are that policy's business, set worker.settlement = \"native\"",
        ),
        "x-delivery-limit" => (
            "drops what came back to it too often",
            "let it run empty, delete it and let a worker make it again",
        ),
        "x-single-active-consumer" => (
            "serves one consumer at a time; more workers only wait",
            "see to it that this is meant",
        ),
        _ => ("has an argument of its own", "see to it that this is meant"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(product: &str, version_text: &str) -> String {
        let greeting = Greeting {
            product: product.to_owned(),
            version: version_text.to_owned(),
        };
        let line = version(&greeting, 64 << 20).to_string();
        line.split_whitespace().next().unwrap().to_owned()
    }

    #[test]
    fn versions_are_judged_by_number() {
        for (text, expected) in [
            ("3.9.29", "FAIL"),
            ("3.10.8", "ok"),
            ("3.13.0-rc.1", "ok"),
            ("4.0.5", "ok"),
            ("nonsense", "FAIL"),
        ] {
            assert_eq!(verdict("RabbitMQ", text), expected, "{text}");
        }
        assert_eq!(verdict("LavinMQ", "2.0"), "warn");
    }

    #[test]
    fn a_grant_names_the_queues_alone() {
        let queues = ["a.b".parse().unwrap(), "c".parse().unwrap()];
        let line = grant("u", "/", &queues);
        assert!(
            line.contains(r"'^(a\.b|c)(\.(dead(\.look)?|suspects|paused|delay\..+))?$'"),
            "{line}"
        );
        assert!(line.contains(r"'^amq\.default$'"), "{line}");
    }
}
