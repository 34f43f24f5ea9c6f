//! [`Guest`]: what the host keeps for one run, and what the run may reach: clocks, randomness and its
//! own voice.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::contract::Plugin;
use super::contract::scutwork::task::task_types;
use super::http::Outgoing;
use super::limits::Limits;
use super::memory::Memory;
use super::stdio::Pen;
use super::voice::{Stream, Voice};

/// Handles and host resources that a run may hold at once.
const MAX_RESOURCES: usize = 10_000;
/// Random bytes that a run may ask for in one call.
const MAX_RANDOM: u64 = 1 << 20;
/// What one call may copy from the guest beside the output's own bytes, in bytes.
const MAX_COPIED: usize = 2 << 20;

/// The host's side of one run.
pub(super) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    table: ResourceTable,
    memory: Memory,
    voice: Arc<Voice>,
}

impl Guest {
    /// A store for one run, with nothing in it yet.
    pub(super) fn store(engine: &Engine, voice: &Arc<Voice>, limits: &Limits) -> Store<Guest> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let guest = Guest {
            // No files, variables, arguments or addresses: those must be given, and none are.
            wasi: WasiCtx::builder()
                .stdout(Pen::new(voice, Stream::Stdout))
                .stderr(Pen::new(voice, Stream::Stderr))
                .max_random_size(MAX_RANDOM)
                .allow_tcp(false)
                .allow_udp(false)
                .build(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(voice),
            table,
            memory: Memory::new(limits.memory),
            voice: Arc::clone(voice),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let output = usize::try_from(limits.output).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(output.saturating_add(MAX_COPIED));
        store.set_max_component_handles(MAX_RESOURCES);
        store
    }

    /// Everything that a plugin may import.
    ///
    /// # Errors
    /// When two of them have the same name, which they have not.
    pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        Plugin::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
        Ok(linker)
    }

    pub(super) fn voice(&self) -> &Voice {
        &self.voice
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// An interface of types alone has nothing to do.
impl task_types::Host for Guest {}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
