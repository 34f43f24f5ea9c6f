//! Sleeps one second for every dot in the payload, and says how far it is after each.
//!
//! The payload is any bytes; what is not a dot does not matter. `Hello...` takes three seconds. The
//! output is a line of text, such as `slept 3 s for 3 dots`.
//!
//! It shows how a plugin reports progress, and how it stops half way when the worker wants to stop.

use std::thread;
use std::time::Duration;

use scutwork_plugin::{Failure, Output, Task, control, plugin};

plugin!(dots);

fn dots(task: Task) -> Result<Output, Failure> {
    let dots = task.payload.iter().filter(|&&byte| byte == b'.').count();
    let dots = u32::try_from(dots).unwrap_or(u32::MAX);
    for done in 0..dots {
        if control::is_cancelled() {
            // The worker is stopping, so another one does the task from its beginning.
            let stopped = format!("stopped after {done} of {dots} dots");
            return Err(Failure::retry("cancelled", stopped));
        }
        thread::sleep(Duration::from_secs(1));
        control::progress(done + 1, dots, "sleeping");
    }
    Ok(Output::text(format!("slept {dots} s for {dots} dots")))
}
