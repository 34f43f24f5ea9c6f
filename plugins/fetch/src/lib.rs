//! Sends an HTTP request, and knows which answers are worth another try.
//!
//! The payload is JSON: `{"url": "https://api.example.com/orders"}`, with `method`, `headers` and `body`
//! where they are wanted. The output is the answer's body, with its content type. What the server says
//! decides:
//!
//! - 2xx: done.
//! - 408, 425, 429 and 5xx, and a server that cannot be reached: a retry, after the `Retry-After` in
//!   seconds that the server asks for.
//! - anything else: a reject, with the beginning of the answer.
//!
//! The task's id goes along as `Idempotency-Key`, because a task may run twice.

mod http;

use std::collections::BTreeMap;
use std::time::Duration;

use scutwork_plugin::{Failure, Output, Task, log, plugin};
use serde::Deserialize;

use crate::http::{Answer, NoAnswer};

plugin!(fetch);

/// What the payload asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

fn get() -> String {
    "GET".to_owned()
}

fn fetch(task: Task) -> Result<Output, Failure> {
    let mut request: Request = task.json()?;
    let is_keyed = |name: &String| name.eq_ignore_ascii_case("idempotency-key");
    if !request.headers.keys().any(is_keyed) {
        let key = ("idempotency-key".to_owned(), task.id.clone());
        request.headers.extend([key]);
    }
    match http::send(&request) {
        Ok(answer) => {
            log::info("answered", &[("status", &answer.status)]);
            judge(answer)
        }
        // The host has logged what to write into the manifest.
        Err(NoAnswer::Refused(why)) => Err(Failure::reject("not-granted", why)),
        Err(NoAnswer::Wrong(why)) => Err(Failure::reject("bad-request", why)),
        Err(NoAnswer::Lost(why)) => Err(Failure::retry("unreachable", why)),
    }
}

/// What an answer means for the task.
fn judge(answer: Answer) -> Result<Output, Failure> {
    let status = answer.status;
    let code = format!("status-{status}");
    match status {
        200..=299 => Ok(Output {
            content_type: answer.header("content-type").map(str::to_owned),
            body: answer.body,
        }),
        408 | 425 | 429 | 500..=599 => {
            let failure = Failure::retry(&code, told(&answer));
            // It may be a date too; then the manifest's backoff is as good.
            let wait = answer.header("retry-after");
            Err(match wait.and_then(|seconds| seconds.trim().parse().ok()) {
                Some(seconds) => failure.after(Duration::from_secs(seconds)),
                None => failure,
            })
        }
        300..=399 => {
            let target = answer.header("location").unwrap_or("nowhere");
            let why = format!("the server answered {status}, which leads to {target}");
            Err(Failure::reject(&code, why))
        }
        _ => Err(Failure::reject(&code, told(&answer))),
    }
}

/// What a person reads of an answer that helped nobody.
fn told(answer: &Answer) -> String {
    const ENOUGH: usize = 200;
    let text = String::from_utf8_lossy(&answer.body);
    let start: String = text.trim().chars().take(ENOUGH).collect();
    match start.as_str() {
        "" => format!("the server answered {}", answer.status),
        start => format!("the server answered {}: {start}", answer.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: (&str, &str)) -> Answer {
        Answer {
            status,
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            body: b"so it is".to_vec(),
        }
    }

    #[test]
    fn success_is_the_answers_body_and_type() {
        let output = judge(answer(201, ("Content-Type", "text/css"))).unwrap();
        assert_eq!(output, Output::bytes("text/css", "so it is"));
    }

    #[test]
    fn what_may_pass_is_tried_again_when_the_server_says() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let Err(Failure::Retry(reason)) = judge(answer(status, ("retry-after", "7"))) else {
                panic!("{status} is no retry");
            };
            assert_eq!(reason.code, format!("status-{status}"));
            assert_eq!(reason.delay, Some(7000));
        }
        let date = ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT");
        let Err(Failure::Retry(reason)) = judge(answer(503, date)) else {
            panic!("503 is no retry");
        };
        assert_eq!(reason.delay, None);
    }

    #[test]
    fn what_will_not_pass_is_rejected() {
        for status in [301, 400, 401, 403, 404, 410, 422] {
            let judged = judge(answer(status, ("location", "/there")));
            assert!(matches!(judged, Err(Failure::Reject(_))), "{status}");
        }
    }

    #[test]
    fn a_request_is_read_whole_or_not_at_all() {
        let read = |text: &str| Task::new(text).json::<Request>();
        assert_eq!(
            read(r#"{"url": "https://a.example"}"#).unwrap().method,
            "GET"
        );
        assert!(read(r#"{"url": "https://a.example", "methd": "PUT"}"#).is_err());
        assert!(read("{}").is_err());
    }
}
