//! Takes memory until it is stopped: for trying out the memory limit.
//!
//! The payload does not matter. It never returns: when there is no more memory, Rust aborts, as
//! programs do.

use scutwork_plugin::{Failure, Output, Task, plugin};

/// One bite, in bytes.
const BITE: usize = 1 << 20;

plugin!(glutton);

fn glutton(_: Task) -> Result<Output, Failure> {
    let mut eaten = Vec::new();
    loop {
        // Written to, so that it is really there.
        eaten.push(vec![1_u8; BITE]);
    }
}
