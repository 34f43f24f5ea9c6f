//! Rejects every task: for trying out dead letters.
//!
//! The payload is the reason as text. A header `code` sets the word that dead letters are grouped by;
//! without it, that is `not-to-my-taste`.
//!
//! It shows how a plugin reads a header, and how it says that a task can never work.

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};
use scutwork::task::task_types::RejectReason;

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

struct Picky;

export!(Picky);

impl Guest for Picky {
    fn handle(task: Task) -> Result<Output, Failure> {
        let code = task.headers.into_iter().find(|(name, _)| name == "code");
        Err(Failure::Reject(RejectReason {
            code: code.map_or_else(|| "not-to-my-taste".into(), |(_, value)| value),
            message: String::from_utf8_lossy(&task.payload).into_owned(),
        }))
    }
}
