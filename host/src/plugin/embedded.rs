//! The plugins that come with the host: bytes like any other plugin's, and trusted no more.

/// Sleeps one second for every dot in the payload.
pub fn dots() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/dots.wasm"))
}

/// Returns the payload as it came.
pub fn echo() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/echo.wasm"))
}

/// Fails until a given attempt, then succeeds.
pub fn flaky() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/flaky.wasm"))
}

/// Rejects every task, with the payload as the reason.
pub fn picky() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/picky.wasm"))
}

/// Computes for ever.
pub fn endless() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/endless.wasm"))
}

/// Computes for as many turns as the payload says.
pub fn busy() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/busy.wasm"))
}

/// Takes memory until it is stopped.
pub fn glutton() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/glutton.wasm"))
}

/// Tries to reach what nobody granted it, and tells what came of it.
pub fn nosy() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/nosy.wasm"))
}
