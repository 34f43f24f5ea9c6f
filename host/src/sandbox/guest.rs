//! [`Guest`]: what the host keeps for one run, and what the run may reach: clocks, randomness, its own
//! voice, and what it is granted.

use std::sync::Arc;
use std::time::Instant;

use scutwork_wasi::{Held, Host};
use wasmtime::component::HasSelf;
use wasmtime::error::Context as _;
use wasmtime::{Engine, Store, component};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

use super::breach::Breach;
use super::command::CommandCall;
use super::contract::Plugin;
use super::contract::scutwork::task::task_types;
use super::grants::{Access, Grants};
use super::http::{Network, Outgoing};
use super::limits::Limits;
use super::memory::Memory;
use super::random::Randomness;
use super::slices::{self, Slices};
use super::stdio::Pen;
use super::ticker::Ticker;
use super::voice::{Stream, Voice};

/// Random bytes that a run may ask for in one call.
const MAX_RANDOM: u64 = 1 << 20;
/// What one call may copy from the guest beside the output's own bytes, in bytes.
const MAX_COPIED: usize = 2 << 20;

/// Every store of this host's is made by [`Guest::store`].
const ALWAYS: &str = "a store of this host holds a guest";

/// The host's side of one run. What many guests never ask for is made when one first does.
pub(super) struct Guest {
    wasi: Option<Box<WasiP1Ctx>>,
    web: Option<Box<Web>>,
    memory: Memory,
    slices: Slices,
    voice: Arc<Voice>,
    grants: Arc<Grants>,
    network: Arc<Network>,
    limits: Limits,
    breach: Breach,
    variables: Vec<(String, String)>,
}

/// What stands between a guest and the web.
struct Web {
    http: WasiHttpCtx,
    outgoing: Outgoing,
}

/// What one run has around it.
pub(super) struct Surroundings<'a> {
    pub(super) voice: &'a Arc<Voice>,
    pub(super) limits: &'a Limits,
    /// Where host calls say that a limit is passed.
    pub(super) breach: &'a Breach,
    pub(super) grants: &'a Arc<Grants>,
    pub(super) network: &'a Arc<Network>,
    pub(super) ticker: &'a Ticker,
    /// The variables that are granted.
    pub(super) variables: Vec<(String, String)>,
    /// How the task is handed over, if the guest is a command.
    pub(super) command: Option<&'a CommandCall>,
}

impl Guest {
    /// A store for one run, with nothing in it yet.
    ///
    /// # Errors
    /// When a directory that is granted cannot be opened.
    pub(super) fn store(
        engine: &Engine,
        around: Surroundings<'_>,
    ) -> wasmtime::Result<Store<Held>> {
        let Surroundings {
            voice,
            limits,
            breach,
            grants,
            network,
            ticker,
            variables,
            command,
        } = around;
        let mut guest = Guest {
            wasi: None,
            web: None,
            memory: Memory::new(limits.memory),
            slices: Slices::new(ticker.pulse(), Instant::now()),
            voice: Arc::clone(voice),
            grants: Arc::clone(grants),
            network: Arc::clone(network),
            limits: *limits,
            breach: breach.clone(),
            variables,
        };
        if command.is_some() || !grants.directories.is_empty() {
            guest.wasi = Some(guest.equipped(command)?);
        }
        let mut store = Store::new(engine, Held::new(guest));
        store.limiter(|held| &mut Guest::of_mut(held).memory);
        slices::cut(&mut store, |held| &mut Guest::of_mut(held).slices);
        let output = usize::try_from(limits.output).unwrap_or(usize::MAX);
        let more = command.map_or(0, |call| call.copied);
        store.set_hostcall_fuel(output.saturating_add(MAX_COPIED).saturating_add(more));
        store.set_max_component_handles(handles(limits));
        Ok(store)
    }

    /// The host's side of the run that a store is for.
    pub(super) fn of(held: &Held) -> &Guest {
        held.get().expect(ALWAYS)
    }

    /// The same, to be changed.
    fn of_mut(held: &mut Held) -> &mut Guest {
        held.get_mut().expect(ALWAYS)
    }

    /// WASI with what is granted, and with the task if the guest is a command.
    fn equipped(&self, command: Option<&CommandCall>) -> wasmtime::Result<Box<WasiP1Ctx>> {
        let mut wasi = self.plain();
        for directory in &self.grants.directories {
            let access = match directory.access {
                Access::Read => FsPerms::ReadOnly,
                Access::Write => FsPerms::ReadWrite,
            };
            wasi.preopened_dir(&directory.host, &directory.guest, access)
                .with_context(|| {
                    format!(
                        "the directory {}, which is granted as {}, cannot be opened",
                        directory.host.display(),
                        directory.guest
                    )
                })?;
        }
        if let Some(call) = command {
            wasi.stdin(call.stdin.clone())
                .stdout(call.stdout.clone())
                .args(&call.args)
                .envs(&call.environment);
        }
        Ok(self.built(wasi))
    }

    /// WASI without files, arguments or addresses: those must be given.
    fn plain(&self) -> WasiCtxBuilder {
        let [secure, insecure] = Randomness::pair(self.limits.random, &self.breach);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Pen::new(&self.voice, Stream::Stdout))
            .stderr(Pen::new(&self.voice, Stream::Stderr))
            .secure_random(secure)
            .insecure_random(insecure)
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .envs(&self.variables);
        wasi
    }

    fn built(&self, mut wasi: WasiCtxBuilder) -> Box<WasiP1Ctx> {
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(handles(&self.limits));
        Box::new(wasi)
    }

    pub(super) fn voice(&self) -> &Voice {
        &self.voice
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// Everything that a guest may import.
pub(super) struct Linkers {
    pub(super) component: component::Linker<Held>,
    pub(super) module: wasmtime::Linker<Held>,
}

impl Linkers {
    /// Links the host's functions for both kinds of files.
    ///
    /// # Errors
    /// When two of them have the same name, which they have not.
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Linkers> {
        let mut component = scutwork_wasi::component_linker(engine)?;
        Plugin::add_to_linker::<_, HasSelf<Guest>>(&mut component, Guest::of_mut)?;
        let module = scutwork_wasi::module_linker(engine)?;
        Ok(Linkers { component, module })
    }
}

/// An interface of types alone has nothing to do.
impl task_types::Host for Guest {}

impl Host for Guest {
    fn wasi(&mut self) -> &mut WasiP1Ctx {
        if self.wasi.is_none() {
            // What can be missing was given before the guest began.
            self.wasi = Some(self.built(self.plain()));
        }
        self.wasi.as_mut().expect("made just now, if not before")
    }

    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.wasi();
        let web = self.web.get_or_insert_with(|| {
            Box::new(Web {
                http: WasiHttpCtx::new(),
                outgoing: Outgoing::new(
                    &self.voice,
                    &self.grants,
                    &self.network,
                    &self.limits,
                    &self.breach,
                ),
            })
        });
        let wasi = self.wasi.as_mut().expect("made above");
        WasiHttpCtxView {
            hooks: &mut web.outgoing,
            table: wasi.ctx().table,
            ctx: &mut web.http,
        }
    }
}

/// Handles that a guest may hold at once.
fn handles(limits: &Limits) -> usize {
    usize::try_from(limits.handles).unwrap_or(usize::MAX)
}
