//! What a plugin asks of its [`Task`].

use serde::de::DeserializeOwned;

use crate::{Failure, Task};

impl Task {
    /// A task as tests make it: a first attempt of five, with nothing but a payload.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Task {
            id: "test".to_owned(),
            plugin: "test".to_owned(),
            payload: payload.into(),
            content_type: None,
            headers: Vec::new(),
            attempt: 1,
            max_attempts: 5,
            timeout_ms: 300_000,
        }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The payload as text.
    ///
    /// # Errors
    /// Rejects the task as `not-text`: bytes that are no text never become any.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.payload).map_err(|error| {
            Failure::reject("not-text", format!("the payload is no text: {error}"))
        })
    }

    /// The payload as JSON, read into any type that serde can make.
    ///
    /// # Errors
    /// Rejects the task as `bad-json`, with the place and what is wrong there.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Failure::reject("bad-json", format!("the payload is wrong: {error}")))
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a retry of this attempt would be a dead letter.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_not_what_it_should_be_rejects_the_task() {
        let code = |failure| match failure {
            Failure::Reject(reason) => reason.code,
            Failure::Retry(_) => panic!("a payload does not get better"),
        };
        assert_eq!(code(Task::new([0xff]).text().unwrap_err()), "not-text");
        let read = Task::new("[1,").json::<Vec<u32>>();
        assert_eq!(code(read.unwrap_err()), "bad-json");
        assert_eq!(Task::new("[1,2]").json::<Vec<u32>>(), Ok(vec![1, 2]));
    }

    #[test]
    fn the_first_header_of_a_name_counts() {
        let task = Task::new("").with_header("a", "1").with_header("a", "2");
        assert_eq!((task.header("a"), task.header("A")), (Some("1"), None));
    }
}
