//! Takes memory until it is stopped: for trying out the memory limit.
//!
//! The payload does not matter. It never returns: when there is no more memory, Rust aborts, as
//! programs do.

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

/// One bite, in bytes.
const BITE: usize = 1 << 20;

struct Glutton;

export!(Glutton);

impl Guest for Glutton {
    fn handle(_: Task) -> Result<Output, Failure> {
        let mut eaten = Vec::new();
        loop {
            // Written to, so that it is really there.
            eaten.push(vec![1_u8; BITE]);
        }
    }
}
