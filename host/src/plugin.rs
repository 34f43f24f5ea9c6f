//! Plugin: a compiled component with its manifest and digest, immutable.

pub mod embedded;
pub mod manifest;
