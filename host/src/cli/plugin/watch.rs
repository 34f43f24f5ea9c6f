//! `scutwork plugin build --watch`: builds again at every change, until stopped.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use notify::{EventKind, RecursiveMode, Watcher};

use super::super::run::{self, RunArgs};
use super::super::{Exit, Global, Stopped, output};
use super::build;
use super::project::Project;
use crate::config::Config;

/// Saving a file is many notices; a build begins when there were none for so long.
const QUIET: Duration = Duration::from_millis(100);

/// Builds, runs the payload if there is one, waits for a change, and begins again.
pub(super) async fn watch(
    global: &Global,
    config: &Config,
    project: &Project,
    out: &Path,
    payload: Option<&str>,
) -> Result<Exit, Stopped> {
    let (sender, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error says that the command ends.
        let _ = sender.send(event);
    })
    .context("cannot watch files")?;
    watcher
        .watch(&project.folder, RecursiveMode::Recursive)
        .with_context(|| format!("cannot watch {}", project.folder.display()))?;
    loop {
        match build::once(global, config, project, out) {
            Ok(Exit::Done) => {
                if let Some(payload) = payload {
                    let file = out.join(format!("{}.wasm", project.name));
                    try_it(global, config, &file, payload).await;
                }
            }
            Ok(_) => {}
            Err(stopped) => output::complain(&format!("{:#}", stopped.reason)),
        }
        output::say("waiting for a change; Ctrl-C ends this");
        if !is_changed(project, &changes) {
            return Ok(Exit::Done);
        }
    }
}

async fn try_it(global: &Global, config: &Config, file: &Path, payload: &str) {
    let args = RunArgs::for_file(file, payload);
    if let Err(stopped) = run::run(global, config.clone(), args).await {
        output::complain(&format!("{:#}", stopped.reason));
    }
}

/// Waits until a source has changed and it is quiet again. False: nobody watches any more.
fn is_changed(project: &Project, changes: &Receiver<notify::Result<notify::Event>>) -> bool {
    let is_source = |event: &notify::Result<notify::Event>| {
        event.as_ref().is_ok_and(|event| {
            let is_change = matches!(
                event.kind,
                EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
            );
            is_change && event.paths.iter().any(|path| project.is_source(path))
        })
    };
    loop {
        match changes.recv() {
            Ok(event) if is_source(&event) => break,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    loop {
        match changes.recv_timeout(QUIET) {
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
