//! Computes for ever: for trying out the CPU limit, and that neighbours do not suffer.
//!
//! The payload does not matter. It never returns; the host ends it.

use std::hint::black_box;

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

struct Endless;

export!(Endless);

impl Guest for Endless {
    fn handle(_: Task) -> Result<Output, Failure> {
        let mut turns: u64 = 0;
        loop {
            turns = black_box(turns.wrapping_add(1));
        }
    }
}
