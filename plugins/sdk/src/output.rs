//! How an [`Output`] is made.

use serde::Serialize;

use crate::{Failure, Output};

impl Output {
    /// Nothing to say: the task is done.
    pub fn empty() -> Self {
        Output {
            content_type: None,
            body: Vec::new(),
        }
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Output::bytes("text/plain", text.into())
    }

    /// Bytes of a type, such as `image/png`.
    pub fn bytes(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Output {
            content_type: Some(content_type.to_owned()),
            body: body.into(),
        }
    }

    /// Anything that serde can write, as JSON.
    ///
    /// # Errors
    /// Rejects the task as `bad-output` when JSON cannot say the value: a map whose keys are no text.
    pub fn json(value: &impl Serialize) -> Result<Self, Failure> {
        serde_json::to_vec(value)
            .map(|body| Output::bytes("application/json", body))
            .map_err(|error| Failure::reject("bad-output", error))
    }
}
