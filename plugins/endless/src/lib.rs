//! Computes for ever: for trying out the CPU limit, and that neighbours do not suffer.
//!
//! The payload does not matter. It never returns; the host ends it.

use std::hint::black_box;

use scutwork_plugin::{Failure, Output, Task, plugin};

plugin!(endless);

fn endless(_: Task) -> Result<Output, Failure> {
    let mut turns: u64 = 0;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}
