//! The engine: how wasmtime is set up, so that an instance is cheap to make and cannot leave its
//! bounds.

use std::num::NonZeroUsize;

use anyhow::{Context, anyhow};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails, WasmFeatures,
};

use super::SandboxSettings;
use super::limits::STACK;

/// Core instances in one component; a toolchain makes up to about ten.
pub(super) const MAX_INSTANCES: u32 = 16;
/// Linear memories in one component.
pub(super) const MAX_MEMORIES: u32 = 4;
/// Tables in one component.
pub(super) const MAX_TABLES: u32 = 16;

/// Elements in one table. The largest toolchains known need about 20,000.
pub(super) const TABLE_ELEMENTS: usize = 65_536;

/// Unmapped address space after every linear memory, which makes most bounds checks one compare.
const GUARD: u64 = 32 << 20;
/// The least that a linear memory's address range is, so that it need not move when it grows.
const MIN_RESERVATION: u64 = 64 << 20;
/// A WebAssembly page.
const PAGE: u64 = 64 << 10;

/// A fiber's stack, for the guest and the host calls that it makes.
const ASYNC_STACK: usize = STACK + (256 << 10);

/// How many frames of a trap's backtrace are kept.
const BACKTRACE_FRAMES: usize = 32;

/// Memories that stay as the plugin left them that used them last, with what is resident of them: another run
/// of the same plugin begins faster. Where runs go round more plugins than this, each run maps its memory anew.
const WARM_MEMORIES: u32 = 512;

/// Pages up to these sizes stay mapped between runs and are cleared by hand, which is faster than
/// giving them back.
const MEMORY_KEEP_RESIDENT: usize = 256 << 10;
const TABLE_KEEP_RESIDENT: usize = 16 << 10;

/// An engine, and how it comes by instances.
pub(super) struct MadeEngine {
    pub(super) engine: Engine,
    /// Why there is no pool, if there is none.
    pub(super) without_pool: Option<String>,
}

/// Makes an engine with a pool of instances, or without one where the address space is too small.
///
/// # Errors
/// When there can be no engine at all.
pub(super) fn make(settings: &SandboxSettings) -> anyhow::Result<MadeEngine> {
    let memory = reserved(settings.ceiling.memory);
    let pooled = pool(settings, memory).and_then(|pool| {
        let mut config = config(memory);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        Engine::new(&config).map_err(|error| anyhow!("{error:#}"))
    });
    match pooled {
        Ok(engine) => Ok(MadeEngine {
            engine,
            without_pool: None,
        }),
        Err(error) => {
            let mut config = config(memory);
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            let engine = Engine::new(&config)
                .map_err(|error| anyhow!("cannot make a WebAssembly engine: {error:#}"))?;
            Ok(MadeEngine {
                engine,
                without_pool: Some(format!("{error:#}")),
            })
        }
    }
}

/// Makes an engine that compiles and never runs anything: it holds no pool, and its code is what the
/// engines of [`make`] with this memory ceiling load.
///
/// # Errors
/// When there can be no engine at all.
pub(super) fn for_compiling(memory_ceiling: u64) -> wasmtime::Result<Engine> {
    let mut config = config(reserved(memory_ceiling));
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

/// A memory ceiling in whole pages.
fn reserved(memory_ceiling: u64) -> u64 {
    memory_ceiling.div_ceil(PAGE) * PAGE
}

/// What is the same with and without a pool. Everything that plugins do not need is off: what is off
/// cannot have a bug that matters here.
fn config(memory: u64) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .async_stack_size(ASYNC_STACK)
        .max_wasm_stack(STACK)
        .memory_reservation(memory.max(MIN_RESERVATION))
        .memory_guard_size(GUARD)
        .memory_may_move(false)
        .memory_init_cow(true)
        // By an environment variable unless it is said: code must not depend on who compiles it.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .concurrency_support(false)
        .shared_memory(false)
        .wasm_features(
            WasmFeatures::THREADS
                | WasmFeatures::SHARED_EVERYTHING_THREADS
                | WasmFeatures::MEMORY64
                | WasmFeatures::GC
                | WasmFeatures::FUNCTION_REFERENCES
                | WasmFeatures::EXCEPTIONS
                | WasmFeatures::LEGACY_EXCEPTIONS
                | WasmFeatures::STACK_SWITCHING
                | WasmFeatures::CUSTOM_PAGE_SIZES
                | WasmFeatures::WIDE_ARITHMETIC
                | WasmFeatures::CM_ASYNC,
            false,
        );
    config
}

fn pool(settings: &SandboxSettings, memory: u64) -> anyhow::Result<PoolingAllocationConfig> {
    let slots = u32::try_from(settings.slots.max(1)).context("more slots than there can be")?;
    // Every slot may hold the largest component there is, so the pool lasts as long as the slots do.
    // What is not in use is address space, and nothing else.
    let times = |most: u32| {
        slots
            .checked_mul(most)
            .context("more slots than there can be")
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(times(MAX_INSTANCES)?)
        .total_memories(times(MAX_MEMORIES)?.max(WARM_MEMORIES))
        .max_unused_warm_slots(WARM_MEMORIES)
        .total_tables(times(MAX_TABLES)?)
        .total_stacks(slots)
        .total_gc_heaps(slots)
        .max_core_instances_per_component(MAX_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_tables_per_module(MAX_TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(memory).context("the memory ceiling is too high")?)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    Ok(pool)
}
