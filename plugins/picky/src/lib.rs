//! Rejects every task: for trying out dead letters.
//!
//! The payload is the reason as text. A header `code` sets the word that dead letters are grouped by;
//! without it, that is `not-to-my-taste`.
//!
//! It shows how a plugin reads a header, and how it says that a task can never work.

use scutwork_plugin::{Failure, Output, Task, plugin};

plugin!(picky);

fn picky(task: Task) -> Result<Output, Failure> {
    let code = task.header("code").unwrap_or("not-to-my-taste");
    let reason = String::from_utf8_lossy(&task.payload);
    Err(Failure::reject(code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_the_reason_and_a_header_the_code() {
        let task = Task::new("too sour").with_header("code", "sour");
        assert_eq!(picky(task), Err(Failure::reject("sour", "too sour")));
    }
}
