//! The program: parse the command line, run one command.

use std::process::ExitCode;

use clap::Parser;
use scutwork::cli::{Cli, privileges};

/// Most of what a task needs is allocated on one thread and freed on another, for which this allocator takes no
/// lock. Without huge pages, which would be kept for the sake of a few bytes in each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's option for how long it keeps what is free, in milliseconds: `mi_option_purge_delay` of
/// mimalloc 3, which its bindings have no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has the allocator give back what is free after 10 ms, as its version 2 did. After a second, which is the
/// default, a worker under load grows by half. Call it before there are threads.
#[allow(unsafe_code, reason = "nothing but this sets it from within")]
fn give_back_early() {
    // SAFETY: it writes a number into a static table, which no other thread reads at the same time while there
    // is none; every number is a valid delay.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 10) }
}

fn main() -> ExitCode {
    give_back_early();
    privileges::give_up();
    Cli::parse().run()
}
