//! Returns the payload as it came, and its content type.
//!
//! The payload is any bytes. This is the smallest plugin that there can be, so it is also what a
//! run's own cost is measured with.

use scutwork_plugin::{Failure, Output, Task, plugin};

plugin!(echo);

fn echo(task: Task) -> Result<Output, Failure> {
    Ok(Output {
        content_type: task.content_type,
        body: task.payload,
    })
}
