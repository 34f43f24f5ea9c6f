//! `scutwork demo`: the whole system in one go, on a temporary embedded queue, with every task
//! accounted for at the end.

mod cast;
mod view;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use self::cast::{Ending, Part};
use self::view::View;
use super::signals::Signals;
use super::worker::Rig;
use super::{Exit, Format, Global, Stopped, output};
use crate::broker::sqlite::SqliteOptions;
use crate::broker::{Broker, Message};
use crate::config::{BrokerConfig, Config};
use crate::event::{Event, Observer, PluginEvent};
use crate::name::QueueName;
use crate::outcome::Usage;
use crate::plugin::embedded;
use crate::plugin::registry::Directory;
use crate::settlement::{ReplyKind, Settlement};
use crate::task::new_id;
use crate::worker::StopSwitch;

/// The demo gives up after this long; it takes about a third of it.
const PATIENCE: Duration = Duration::from_secs(28);

/// When `echo.wasm` is dropped in, counted from the start.
const DROP_AFTER: Duration = Duration::from_secs(3);

/// What the demo sees of its worker.
enum Scene {
    Started {
        task: String,
        attempt: u32,
    },
    Progress {
        task: String,
        done: u32,
        total: u32,
    },
    Settled {
        task: String,
        ending: Seen,
        usage: Usage,
    },
    Serves(String, Duration),
}

/// What became of a delivery.
enum Seen {
    Done(String),
    Retry(String, Duration),
    Parked(Duration),
    Released,
    Dead { reason: String, error: String },
}

/// Passes events on to the demo, which draws them in a loop of its own.
struct Camera(mpsc::UnboundedSender<Scene>);

impl Observer for Camera {
    fn observe(&self, event: &Event<'_>) {
        let scene = match event {
            Event::Started { run, .. } => Scene::Started {
                task: run.task.to_owned(),
                attempt: run.attempt,
            },
            Event::Progress {
                run, done, total, ..
            } => Scene::Progress {
                task: run.task.to_owned(),
                done: *done,
                total: *total,
            },
            Event::Settled {
                run,
                settlement,
                usage,
                ..
            } => Scene::Settled {
                task: run.task.to_owned(),
                ending: seen(settlement),
                usage: usage.unwrap_or_default(),
            },
            Event::Plugin(PluginEvent::Added {
                name, compiled_in, ..
            }) => Scene::Serves(name.to_string(), *compiled_in),
            Event::Plugin(_)
            | Event::Broker(_)
            | Event::Line { .. }
            | Event::Finished { .. }
            | Event::NotSettled { .. }
            | Event::Repeated { .. }
            | Event::Prefetch { .. }
            | Event::Draining { .. } => return,
        };
        // The demo may be over already.
        let _ = self.0.send(scene);
    }
}

fn seen(settlement: &Settlement) -> Seen {
    match settlement {
        Settlement::Done { reply } => Seen::Done(String::from_utf8_lossy(&reply.body).into_owned()),
        Settlement::Retry { after, reply, .. } => {
            Seen::Retry(String::from_utf8_lossy(&reply.body).into_owned(), *after)
        }
        Settlement::Park { after, .. } => Seen::Parked(*after),
        Settlement::Release { .. } => Seen::Released,
        Settlement::Dead { letter, .. } => Seen::Dead {
            reason: letter.reason.clone(),
            error: letter.error.clone(),
        },
    }
}

/// Runs the command.
pub(super) async fn demo(global: &Global) -> Result<Exit, Stopped> {
    let mut signals = Signals::new()?;
    // Removed with all that is in it when this function ends, whichever way.
    let place = tempfile::Builder::new()
        .prefix("scutwork-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    tokio::select! {
        ended = play(global, place.path()) => ended,
        () = signals.next() => {
            output::complain("the demo was stopped before its end");
            Ok(Exit::No)
        }
        () = tokio::time::sleep(PATIENCE) => {
            output::complain("the demo should have ended long ago; some tasks never did");
            Ok(Exit::No)
        }
    }
}

async fn play(global: &Global, place: &Path) -> Result<Exit, Stopped> {
    let plugins = place.join("plugins");
    cast::dress(&plugins).context("cannot lay out the plugin directory")?;
    let config = config(place.join("queue.db"), plugins.clone())?;
    let queue = config.queues[0].clone();
    let (camera, mut scenes) = mpsc::unbounded_channel();
    let rig = Rig::build(&config, vec![Box::new(Camera(camera))]).await?;
    let (switch, stop) = StopSwitch::new();
    let broker = rig.broker.clone();
    let worker = tokio::spawn(rig.run(stop));

    let mut stage = Stage::new(global, place);
    stage
        .submit(broker.as_ref(), &queue, cast::opening())
        .await?;
    stage.watch(&mut scenes, Some(DROP_AFTER)).await;
    cast::drop_in(&plugins, "echo", embedded::echo()).context("cannot drop a plugin in")?;
    stage.watch_until_served(&mut scenes, "echo").await;
    stage
        .submit(broker.as_ref(), &queue, cast::encore())
        .await?;
    stage.watch(&mut scenes, None).await;

    let depth = broker.depth(&queue).await?.unwrap_or_default();
    switch.drain();
    worker.await.context("the worker panicked")??;
    Ok(stage.reckon(depth.dead, depth.ready + depth.delayed))
}

/// A worker on a file of its own that looks for missing plugins more often than usual.
fn config(queue: PathBuf, plugins: PathBuf) -> Result<Config, Stopped> {
    let mut config = Config::built_in()?;
    config.broker = BrokerConfig::Sqlite(SqliteOptions::new(queue));
    config.plugins = Directory::Named(plugins);
    config.parking.every = Duration::from_secs(1);
    config.grace = Duration::from_secs(2);
    Ok(config)
}

/// The demo's own record of its tasks.
struct Stage {
    view: View,
    began: Instant,
    parts: HashMap<String, Part>,
    endings: HashMap<String, Seen>,
    parked: HashSet<String>,
    dead: u64,
}

impl Stage {
    fn new(global: &Global, place: &Path) -> Self {
        let began = Instant::now();
        let view = View::new(global, began);
        view.say(&format!(
            "a worker on an embedded queue in {}",
            place.display()
        ));
        Stage {
            view,
            began,
            parts: HashMap::new(),
            endings: HashMap::new(),
            parked: HashSet::new(),
            dead: 0,
        }
    }

    async fn submit(
        &mut self,
        broker: &dyn Broker,
        queue: &QueueName,
        parts: Vec<Part>,
    ) -> Result<(), Stopped> {
        let mut messages = Vec::new();
        for part in parts {
            let id = new_id();
            messages.push(Message {
                plugin: part.plugin.map(str::to_owned),
                id: Some(id.clone()),
                body: part.payload.into(),
                ..Message::default()
            });
            self.view.submitted(&id, &part);
            self.parts.insert(id, part);
        }
        broker.publish(queue, messages, None).await?;
        Ok(())
    }

    /// Watches until every submitted task has ended, or for so long.
    async fn watch(&mut self, scenes: &mut mpsc::UnboundedReceiver<Scene>, most: Option<Duration>) {
        let until = most.map(|most| tokio::time::Instant::from_std(self.began) + most);
        while self.endings.len() < self.parts.len() {
            let scene = match until {
                None => scenes.recv().await,
                Some(until) => match tokio::time::timeout_at(until, scenes.recv()).await {
                    Ok(scene) => scene,
                    Err(_) => return,
                },
            };
            let Some(scene) = scene else { return };
            self.show(scene);
        }
    }

    async fn watch_until_served(
        &mut self,
        scenes: &mut mpsc::UnboundedReceiver<Scene>,
        plugin: &str,
    ) {
        while let Some(scene) = scenes.recv().await {
            let served = matches!(&scene, Scene::Serves(name, _) if name == plugin);
            self.show(scene);
            if served {
                return;
            }
        }
    }

    fn show(&mut self, scene: Scene) {
        match scene {
            Scene::Started { task, attempt } => self.view.started(&task, attempt),
            Scene::Progress { task, done, total } => self.view.progress(&task, done, total),
            Scene::Serves(name, compiled_in) => self.view.serves(&name, compiled_in),
            Scene::Settled {
                task,
                ending,
                usage,
            } => {
                // A parked task comes back again and again; once is enough to see.
                if !matches!(ending, Seen::Parked(_)) || self.parked.insert(task.clone()) {
                    self.view.settled(&task, &ending, usage);
                }
                match ending {
                    Seen::Retry(..) | Seen::Parked(_) | Seen::Released => {}
                    Seen::Done(_) => {
                        self.endings.insert(task, ending);
                    }
                    Seen::Dead { .. } => {
                        self.dead += 1;
                        self.endings.insert(task, ending);
                    }
                }
            }
        }
    }

    /// Holds what was seen, and what the queue says, against what should have been.
    fn reckon(self, dead: u64, left: u64) -> Exit {
        let mut wrong = Vec::new();
        let (mut done, mut died) = (0, 0);
        for (id, part) in &self.parts {
            let as_expected = match (&part.ending, self.endings.get(id)) {
                (Ending::Done(text), Some(Seen::Done(body))) if body.contains(text) => {
                    done += 1;
                    true
                }
                (Ending::Dead(expected), Some(Seen::Dead { reason, .. })) if reason == expected => {
                    died += 1;
                    true
                }
                _ => false,
            };
            if !as_expected {
                wrong.push(format!(
                    "{} {:?} did not end as it should",
                    part.name(),
                    part.payload
                ));
            }
        }
        if (dead, left) != (self.dead, 0) {
            wrong.push(format!(
                "the queue has {dead} dead letters and {left} tasks left"
            ));
        }
        let took = self.began.elapsed().as_secs_f64();
        self.view.end(&format!(
            "{} tasks submitted: {done} done, {died} dead as they should be, {} otherwise; {left} left on the queue; {took:.1} s",
            self.parts.len(),
            self.parts.len() - done - died,
        ));
        for line in &wrong {
            output::complain(line);
        }
        if wrong.is_empty() {
            Exit::Done
        } else {
            Exit::No
        }
    }
}

/// Kept here so that the view and the reckoning use the same words.
fn word(seen: &Seen) -> &'static str {
    match seen {
        Seen::Done(_) => ReplyKind::Done.as_str(),
        Seen::Retry(..) => ReplyKind::Retry.as_str(),
        Seen::Parked(_) => ReplyKind::Parked.as_str(),
        Seen::Released => "released",
        Seen::Dead { .. } => ReplyKind::Dead.as_str(),
    }
}

/// The demo has no results for programs; with `-o json` it writes its lines as JSON.
fn is_json(global: &Global) -> bool {
    global.output == Format::Json
}
