//! Writes random modules and components into a folder, the same ones for the same seed:
//! `smith FOLDER SEED COUNT`.

use std::error::Error;
use std::path::Path;

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

/// What a command may import: any of WASI's first preview that does not wait.
const IMPORTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))))"#;

/// What makes a module a command.
const EXPORTS: &str = r#"(module
    (func (export "_start"))
    (memory (export "memory") 1))"#;

/// Random bytes that a module is made of; more make larger ones.
const SEED_BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, seed, count] = arguments.as_slice() else {
        return Err("usage: smith FOLDER SEED COUNT".into());
    };
    let folder = Path::new(folder);
    let mut random = SplitMix(seed.parse()?);
    for number in 0..count.parse::<u32>()? {
        let bytes: Vec<u8> = (0..SEED_BYTES / 8)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        let mut bytes = Unstructured::new(&bytes);
        // Every sixth is a component, and every sixth may use what this host has off.
        let made = match number % 6 {
            0 => Component::new(config(true)?, &mut bytes).map(|made| made.to_bytes()),
            1 => Module::new(config(true)?, &mut bytes).map(|made| made.to_bytes()),
            _ => Module::new(config(false)?, &mut bytes).map(|made| made.to_bytes()),
        };
        // Where the bytes do not suffice, there is one less.
        if let Ok(wasm) = made {
            std::fs::write(folder.join(format!("smith-{number}.wasm")), wasm)?;
        }
    }
    Ok(())
}

fn config(is_wild: bool) -> Result<Config, Box<dyn Error>> {
    Ok(Config {
        available_imports: Some(wat::parse_str(IMPORTS)?),
        exports: Some(wat::parse_str(EXPORTS)?),
        max_memories: 4,
        max_tables: 4,
        max_memory32_bytes: 1 << 32,
        memory64_enabled: is_wild,
        threads_enabled: is_wild,
        gc_enabled: is_wild,
        exceptions_enabled: is_wild,
        allow_invalid_funcs: is_wild,
        shared_everything_threads_enabled: false,
        custom_descriptors_enabled: false,
        custom_page_sizes_enabled: false,
        wide_arithmetic_enabled: false,
        relaxed_simd_enabled: false,
        ..Config::default()
    })
}

/// Steele, Lea and Flood's generator: small, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
