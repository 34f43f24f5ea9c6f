//! Returns the payload as it came, and its content type.
//!
//! The payload is any bytes. This is the smallest plugin that there can be, so it is also what a
//! run's own cost is measured with.

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

struct Echo;

export!(Echo);

impl Guest for Echo {
    fn handle(task: Task) -> Result<Output, Failure> {
        Ok(Output {
            content_type: task.content_type,
            body: task.payload,
        })
    }
}
