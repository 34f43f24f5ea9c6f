//! Computes for as many turns as the payload says: for measuring what becomes of work that takes some time.
//!
//! The payload is a number in decimal digits; what is none is rejected. A turn is a few instructions.

use std::hint::black_box;

use scutwork_plugin::{Failure, OrFail, Output, Task, plugin};

plugin!(busy);

fn busy(task: Task) -> Result<Output, Failure> {
    let turns: u64 = task.text()?.trim().parse().or_reject("no-number")?;
    let mut turned: u64 = 0;
    while turned < turns {
        turned = black_box(turned.wrapping_add(1));
    }
    Ok(Output::text(turned.to_string()))
}
