//! Counts the lines, words and bytes of a text.

use scutwork_plugin::{Failure, Output, Task, control, log, plugin};
use serde::Serialize;

plugin!(handle);

#[derive(Serialize)]
struct Counts {
    lines: usize,
    words: usize,
    bytes: usize,
}

fn handle(task: Task) -> Result<Output, Failure> {
    // Rejects what is no text. `task.json::<T>()?` reads JSON in the same way.
    let text = task.text()?;
    match text {
        // It can never work: a dead letter at once.
        "" => return Err(Failure::reject("empty", "there is nothing to count")),
        // It may work later: it runs again after a while, up to retry.max_attempts.
        "busy" if task.attempt < 3 => return Err(Failure::retry("busy", "pretends to be busy")),
        // A bug: the host ends it, and it counts as a retry.
        "crash" => panic!("asked to crash"),
        _ => {}
    }
    let counts = Counts {
        lines: text.lines().count(),
        words: text.split_whitespace().count(),
        bytes: text.len(),
    };
    log::info("counted", &[("words", &counts.words)]);
    control::progress(1, 1, "counted");
    Output::json(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted() {
        let output = handle(Task::new("one two\nthree")).unwrap();
        assert_eq!(output.body, br#"{"lines":2,"words":3,"bytes":13}"#);
    }

    #[test]
    fn nothing_is_rejected() {
        let failure = handle(Task::new("")).unwrap_err();
        assert!(matches!(failure, Failure::Reject(_)));
    }

    #[test]
    fn a_busy_service_is_tried_again() {
        let mut task = Task::new("busy");
        assert!(matches!(handle(task.clone()), Err(Failure::Retry(_))));
        task.attempt = 3;
        assert!(handle(task).is_ok());
    }
}
