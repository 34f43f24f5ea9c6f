//! What wasmtime alone takes for a run: a store, a WASI context, an instance, the call, and all of it
//! dropped. `scutwork bench` holds the sandbox against it.

use anyhow::{anyhow, bail};
use scutwork_wasi::Plain;
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use super::Sandbox;
use super::contract::PluginPre;
use super::contract::exports::scutwork::task::handler;

/// A plugin that is run without limits, log, clock or threads of its own.
pub struct Bare {
    engine: Engine,
    plugin: PluginPre<Plain>,
}

impl Bare {
    /// Compiles a plugin that imports no more than WASI, with the settings of this sandbox. Blocks.
    ///
    /// # Errors
    /// When it imports more, or is no plugin.
    pub fn new(sandbox: &Sandbox, wasm: &[u8]) -> anyhow::Result<Bare> {
        let engine = sandbox.house.engine.clone();
        let make = || {
            let linker = Plain::linker(&engine)?;
            let component = Component::from_binary(&engine, wasm)?;
            PluginPre::new(linker.instantiate_pre(&component)?)
        };
        let plugin = make().map_err(|error: wasmtime::Error| anyhow!("{error:#}"))?;
        Ok(Bare { engine, plugin })
    }

    /// Runs it once, on this thread.
    ///
    /// # Errors
    /// When the plugin does not return ok, or traps.
    pub async fn run(&self, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut store = Store::new(&self.engine, Plain::new());
        // The engine's code looks at the epoch; nothing is to come of it here.
        store.set_epoch_deadline(u64::MAX / 2);
        let task = handler::Task {
            id: "",
            plugin: "",
            payload,
            content_type: None,
            headers: &[],
            attempt: 1,
            max_attempts: 1,
            timeout_ms: 1,
        };
        let called = async {
            let plugin = self.plugin.instantiate_async(&mut store).await?;
            plugin
                .scutwork_task_handler()
                .call_handle(&mut store, task)
                .await
        };
        match called.await {
            Ok(Ok(output)) => Ok(output.body),
            Ok(Err(failure)) => bail!("the plugin failed: {failure:?}"),
            Err(error) => bail!("{error:#}"),
        }
    }
}
