//! Any text as a manifest.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use scutwork::plugin::Manifest;
use scutwork::sandbox::Limits;

fuzz_target!(|text: &str| {
    match Manifest::parse(text, Path::new("thumb.toml"), &Limits::CEILING) {
        Ok(manifest) => assert_eq!(manifest.limits, manifest.limits.under(&Limits::CEILING)),
        Err(error) => assert!(error.to_string().starts_with("thumb.toml")),
    }
});
