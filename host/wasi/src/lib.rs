//! The functions of WASI and of `wasi:http` for the host's stores.
//!
//! They are a library of their own because wasmtime writes each of them, some three hundred, for the type that a
//! store holds. They were two fifths of all that is compiled for the host, at every change to it.

use std::any::Any;

use wasmtime::{Engine, component};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{I32Exit, ResourceTable, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

/// What the functions want from whoever holds a run's side of the host.
pub trait Host: Any + Send {
    /// WASI with what the run is granted.
    fn wasi(&mut self) -> &mut WasiP1Ctx;

    /// The way to the web.
    fn http(&mut self) -> WasiHttpCtxView<'_>;
}

/// What a store holds: a host whose type these functions need not know.
pub struct Held(Box<dyn Host>);

impl Held {
    /// Holds this one.
    pub fn new(host: impl Host) -> Held {
        Held(Box::new(host))
    }

    /// The host; none: it is of another type.
    pub fn get<T: Host>(&self) -> Option<&T> {
        (&*self.0 as &dyn Any).downcast_ref()
    }

    /// The host, to be changed; none: it is of another type.
    pub fn get_mut<T: Host>(&mut self) -> Option<&mut T> {
        (&mut *self.0 as &mut dyn Any).downcast_mut()
    }
}

impl WasiView for Held {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.0.wasi().ctx()
    }
}

impl WasiHttpView for Held {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.0.http()
    }
}

/// What components may import: WASI 0.2 and outgoing `wasi:http`.
///
/// # Errors
/// When two functions have the same name, which they have not.
pub fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<Held>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// What modules may import: WASI's preview 1.
///
/// # Errors
/// As with [`component_linker`].
pub fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<Held>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |held: &mut Held| held.0.wasi())?;
    // The usual one makes a trap of codes from 126 on, which programs exit with all the same.
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) },
    )?;
    Ok(linker)
}

/// What a store holds that has WASI and nothing else, as a program would write it that uses wasmtime alone.
pub struct Plain {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Plain {
    /// A context that grants nothing.
    pub fn new() -> Plain {
        Plain {
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        }
    }

    /// What components may import: WASI 0.2.
    ///
    /// # Errors
    /// As with [`component_linker`].
    pub fn linker(engine: &Engine) -> wasmtime::Result<component::Linker<Plain>> {
        let mut linker = component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        Ok(linker)
    }
}

impl Default for Plain {
    fn default() -> Plain {
        Plain::new()
    }
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}
