//! One run on the guests' threads: a store, an instance, the call, and what it came to.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use scutwork_wasi::Held;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use super::breach::Breach;
use super::command::CommandCall;
use super::contract::{self, exports::scutwork::task::handler};
use super::grants::{Environment, Grants};
use super::guest::{Guest, Surroundings};
use super::limits::Limits;
use super::meter::{Ended, Metered};
use super::prepare::{Prepared, Runnable, START};
use super::verdict::{Circumstances, Ending};
use super::voice::Voice;
use super::{Finished, House};
use crate::outcome::{Failure, Limit, Outcome, Usage};
use crate::task::Task;

/// One run on the guests' threads.
pub(super) struct GuestRun<'a> {
    pub(super) house: &'a House,
    pub(super) prepared: &'a Prepared,
    pub(super) task: &'a Task,
    pub(super) voice: &'a Arc<Voice>,
    pub(super) grants: &'a Arc<Grants>,
    pub(super) limits: Limits,
    pub(super) max_attempts: u32,
}

impl GuestRun<'_> {
    pub(super) async fn finish(self) -> Finished {
        let began = Instant::now();
        let Environment { variables, secrets } = match self.grants.environment() {
            Ok(environment) => environment,
            Err(reason) => return unequipped(reason),
        };
        if !secrets.is_empty() {
            self.voice.keep(secrets.clone());
        }
        let breach = Breach::default();
        let command = self.command();
        let surroundings = Surroundings {
            voice: self.voice,
            limits: &self.limits,
            breach: &breach,
            grants: self.grants,
            network: &self.house.network,
            ticker: &self.house.ticker,
            variables,
            command: command.as_ref(),
        };
        let mut store = match Guest::store(&self.house.engine, surroundings) {
            Ok(store) => store,
            Err(error) => return unequipped(format!("{error:#}")),
        };
        let mut usage = Usage::default();
        let ended = {
            let call = pin!(self.call(&mut store));
            let mut call = Metered::new(call, &self.house.ticker, self.limits.cpu, &breach);
            let ended = tokio::time::timeout(self.limits.timeout, &mut call).await;
            usage.cpu = call.spent();
            ended
        };
        usage.wall = began.elapsed();
        usage.peak_memory = Guest::of(store.data()).memory().peak();
        let refused = Guest::of(store.data()).memory().refused();
        let stderr = self.voice.finish();
        let ending = match ended {
            Ok(Ended::Returned(Ok(Called::Returned(result)))) => Ending::Returned(Ok(result)),
            Ok(Ended::Returned(Ok(Called::Exited(code)))) => match &command {
                Some(call) => self.exited(call, code, refused, &stderr),
                None => Ending::Returned(Err(I32Exit(code.cast_signed()).into())),
            },
            Ok(Ended::Returned(Err(_))) if command.is_some_and(|call| call.stdout.is_over()) => {
                Ending::Limited(Limit::Output)
            }
            Ok(Ended::Returned(Err(error))) => Ending::Returned(Err(error)),
            Ok(Ended::Limited(limit)) => Ending::Limited(limit),
            Err(_) => Ending::Limited(Limit::Timeout),
        };
        let circumstances = Circumstances {
            plugin: &self.task.plugin,
            limits: &self.limits,
            ceiling: &self.house.ceiling,
            was_cancelled: self.voice.is_cancelled(),
            refused,
            stderr,
            usage,
        };
        Finished {
            outcome: secrets.hide_in(circumstances.outcome(ending)),
            usage,
        }
    }

    /// How the task is handed over, if the plugin is a command.
    fn command(&self) -> Option<CommandCall> {
        self.prepared.is_command().then(|| {
            CommandCall::new(
                &self.grants.command,
                self.task,
                &self.limits,
                self.max_attempts,
            )
        })
    }

    fn exited(
        &self,
        call: &CommandCall,
        code: u32,
        refused: Option<Limit>,
        stderr: &str,
    ) -> Ending {
        let result = call.result(&self.grants.command, code, stderr);
        match (result, refused) {
            // A program that is short of memory exits as one that was given nonsense does.
            (Err(handler::Failure::Reject(_)), Some(limit)) => Ending::Limited(limit),
            (result, _) => Ending::Returned(Ok(result)),
        }
    }

    async fn call(&self, store: &mut Store<Held>) -> wasmtime::Result<Called> {
        let called = match &*self.prepared.0 {
            Runnable::Plugin(plugin) => {
                let plugin = plugin.instantiate_async(&mut *store).await?;
                return self.handle(store, &plugin).await.map(Called::Returned);
            }
            Runnable::Command(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                let called = command.wasi_cli_run().call_run(store).await;
                called.map(|result| result.map_or(1, |()| 0))
            }
            Runnable::Module(module) => {
                let module = module.instantiate_async(&mut *store).await?;
                let start = module.get_typed_func::<(), ()>(&mut *store, START)?;
                start.call_async(store, ()).await.map(|()| 0)
            }
        };
        match called {
            Ok(code) => Ok(Called::Exited(code)),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => Ok(Called::Exited(code.cast_unsigned())),
                None => Err(error),
            },
        }
    }

    async fn handle(
        &self,
        store: &mut Store<Held>,
        plugin: &contract::Plugin,
    ) -> wasmtime::Result<Result<handler::Output, handler::Failure>> {
        let task = self.task;
        let headers: Vec<(&str, &str)> = task
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let task = handler::Task {
            id: &task.id,
            plugin: task.plugin.as_str(),
            payload: &task.payload,
            content_type: task.content_type.as_deref(),
            headers: &headers,
            attempt: task.attempt,
            max_attempts: self.max_attempts,
            timeout_ms: u32::try_from(self.limits.timeout.as_millis()).unwrap_or(u32::MAX),
        };
        plugin
            .scutwork_task_handler()
            .call_handle(store, task)
            .await
    }
}

/// A run that came to nothing by no doing of the plugin's, and may come to something another time.
pub(super) fn unequipped(message: String) -> Finished {
    Finished {
        outcome: Outcome::Failed(Failure::Trapped { message }),
        usage: Usage::default(),
    }
}

/// What a call to a guest came back with.
enum Called {
    /// The handler's result.
    Returned(Result<handler::Output, handler::Failure>),
    /// A command's exit code.
    Exited(u32),
}
