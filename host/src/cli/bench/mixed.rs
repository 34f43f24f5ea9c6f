//! A plugin that computes for a millisecond, beside others that compute for ever on every thread, and
//! whether the broker's heartbeats get through meanwhile.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit, millis};
use super::signs::signs;
use super::{Stand, queue, remove};
use crate::broker::{Message, Notice, Part};
use crate::cli::worker::{self, Rig};
use crate::cli::{Stopped, output};
use crate::config::{BrokerConfig, Config};
use crate::event::{Event, Observer, Observers};
use crate::outcome::Outcome;
use crate::plugin::registry::Directory;
use crate::plugin::{Plugin, embedded};
use crate::sandbox::{Cancel, Job};
use crate::task::{Task, new_id};
use crate::worker::StopSwitch;
use crate::worker::prefetch::Prefetch;

/// Tasks of a millisecond, one after the other.
const TIMES: u64 = 300;

/// What such a task computes for.
const WORK: Duration = Duration::from_millis(1);

/// The shortest that AMQP can say. A broker ends a connection that is silent for twice as long.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long nothing but heartbeats is said then.
const SILENCE: Duration = Duration::from_secs(5);

/// How often it is looked at whether the threads that serve the broker get to run.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The hog's own limits: it ends when the bench does.
const HOG: &str = "[limits]\ncpu = \"20m\"\ntimeout = \"20m\"\n";

/// What one worker went through.
struct Measured {
    /// From each submit to the end of the task.
    whole: Figures,
    /// From the start of each task to its end.
    run: Figures,
    /// The longest that a timer was late on the threads that serve the broker.
    late: f64,
    /// Connections that were lost in the silence.
    lost: f64,
}

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let mut config = stand.embedded()?;
    let Directory::Named(plugins) = &config.plugins else {
        unreachable!("a directory was named");
    };
    let hogs = config.threads.get();
    config.slots = config.slots.max(NonZeroUsize::MIN.saturating_add(2 * hogs));
    if let Prefetch::Fixed(prefetch) = config.prefetch {
        config.prefetch = Prefetch::Fixed(prefetch.max(2));
    }
    // What still runs in the end is never to end by itself.
    config.grace = Duration::ZERO;
    for (name, wasm) in [("busy", embedded::busy()), ("hog", embedded::endless())] {
        std::fs::write(plugins.join(format!("{name}.wasm")), wasm)
            .context("cannot write a plugin")?;
    }
    std::fs::write(plugins.join("hog.toml"), HOG).context("cannot write a manifest")?;
    let turns = turns(&config).await?;
    let mut rows = on(stand, &config, "embedded queue", turns, hogs).await?;
    if let Some(options) = stand.rabbitmq() {
        let mut options = options.clone();
        options.heartbeat = Some(HEARTBEAT);
        config.broker = BrokerConfig::RabbitMq(options.clone());
        config.queues = vec![queue()?];
        let measured = on(stand, &config, "RabbitMQ", turns, hogs).await;
        remove(&options, &config.queues[0]).await?;
        rows.extend(measured?);
    }
    Ok(rows)
}

async fn on(
    stand: &Stand<'_>,
    config: &Config,
    broker: &str,
    turns: u64,
    hogs: usize,
) -> Result<Vec<Row>, Stopped> {
    let times = stand.tasks(TIMES);
    let measured = stand
        .repeat(&format!("mixed, {broker}"), async || {
            let alone = worker_with(config, turns, times, 0).await?;
            let beside = worker_with(config, turns, times, hogs).await?;
            Ok((alone, beside))
        })
        .await?;
    let both = |figure: fn(&Measured) -> f64| {
        let alone = measured.iter().map(|(alone, _)| figure(alone));
        let beside = measured.iter().map(|(_, beside)| figure(beside));
        (
            Figures::new(beside.collect()),
            Figures::new(alone.collect()),
        )
    };
    let row = |what: String, (ours, alone), reach| Row {
        bench: "mixed",
        what,
        unit: Unit::Millis,
        ours,
        beside: Some(Beside {
            what: "alone",
            figures: alone,
            by: Comparison::Ratio,
        }),
        reach,
    };
    let most = Some(Reach::AtMost(3.0));
    let mut rows = vec![
        row(
            format!("p99 of 1 ms of work beside {hogs} hogs, submit to end, {broker}"),
            both(|measured| measured.whole.quantile(0.99)),
            most,
        ),
        row(
            format!("the same, start to end, {broker}"),
            both(|measured| measured.run.quantile(0.99)),
            most,
        ),
        row(
            format!("longest that the broker's threads were late, {broker}"),
            both(|measured| measured.late),
            None,
        ),
    ];
    if matches!(config.broker, BrokerConfig::RabbitMq(_)) {
        rows.push(Row {
            unit: Unit::Times,
            beside: None,
            reach: Some(Reach::Never),
            ..row(
                format!("connections lost to a heartbeat of {HEARTBEAT:?}, silent for {SILENCE:?}"),
                both(|measured| measured.lost),
                None,
            )
        });
    }
    Ok(rows)
}

/// How many turns of the plugin take a millisecond of a processor here and now: the fewest of some runs,
/// since what disturbs one only makes it longer.
async fn turns(config: &Config) -> Result<u64, Stopped> {
    const TRIED: u64 = 5_000_000;
    let sandbox = Arc::new(worker::sandbox(config, 1)?);
    let Directory::Named(plugins) = &config.plugins else {
        unreachable!("a directory was named");
    };
    let file = plugins.join("busy.wasm");
    let plugin = Plugin::from_file(&file, sandbox.clone(), &worker::plugin_rules(config))
        .map_err(|refused| anyhow!("{}: {}", refused.file, refused.reason))?;
    let task = Task {
        id: new_id(),
        plugin: "busy".parse().map_err(Stopped::usage)?,
        payload: TRIED.to_string().into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    };
    let mut least = Duration::MAX;
    for _ in 0..20 {
        let job = Job {
            prepared: &plugin.prepared,
            task: &task,
            grants: &plugin.manifest.grants,
            limits: plugin.manifest.limits,
            max_attempts: 1,
        };
        let finished = sandbox
            .run(job, &Observers::default(), &Cancel::new())
            .await;
        match finished.outcome {
            Outcome::Done(_) => least = least.min(finished.usage.cpu),
            other => return Err(anyhow!("a run of the bench came to {other:?}").into()),
        }
    }
    let each_ms = TRIED as f64 * WORK.as_secs_f64() / least.as_secs_f64();
    Ok((each_ms as u64).max(1))
}

/// Tasks one after the other in a worker that also runs so many that never end.
async fn worker_with(
    config: &Config,
    turns: u64,
    times: u64,
    hogs: usize,
) -> Result<Measured, Stopped> {
    let lost = Arc::new(AtomicU64::new(0));
    let (observer, mut signs) = signs(sign);
    let losses = Box::new(Losses(lost.clone()));
    let rig = Rig::build(config, vec![observer, losses]).await?;
    let broker = rig.broker.clone();
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    let measured = async {
        let queue = &config.queues[0];
        broker
            .publish(queue, vec![message("hog", ""); hogs], None)
            .await?;
        for _ in 0..hogs {
            match signs.recv().await.context("the worker ended")? {
                Sign::HogStarted => {}
                _ => return Err(anyhow!("a task of the bench came unasked").into()),
            }
        }
        let lateness = Lateness::watch();
        let (mut whole, mut run) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let task = message("busy", &turns.to_string());
            let submitted = Instant::now();
            broker.publish(queue, vec![task], None).await?;
            let mut started = submitted;
            loop {
                match signs.recv().await.context("the worker ended")? {
                    Sign::Started(at) => started = at,
                    Sign::Finished(at) => {
                        whole.push(millis(at - submitted));
                        run.push(millis(at - started));
                    }
                    Sign::Settled => break,
                    Sign::HogStarted => {}
                    Sign::HogEnded => return Err(anyhow!("a hog of the bench ended").into()),
                }
            }
        }
        if matches!(config.broker, BrokerConfig::RabbitMq(_)) {
            tokio::time::sleep(SILENCE).await;
        }
        Ok::<_, Stopped>(Measured {
            whole: Figures::new(whole),
            run: Figures::new(run),
            late: millis(lateness.most().await),
            lost: lost.load(Ordering::Relaxed) as f64,
        })
    };
    let measured = measured.await;
    switch.drain();
    worker.await.context("the worker panicked")??;
    // What the worker released would be in the way of the next one.
    purge(config).await?;
    measured
}

async fn purge(config: &Config) -> Result<(), Stopped> {
    let broker = crate::cli::connect(&config.broker, Arc::new(|_| {})).await?;
    let purged = broker.purge(&config.queues[0], Part::Ready).await;
    broker.close().await;
    purged.map(|_| ()).map_err(Stopped::from)
}

fn message(plugin: &str, body: &str) -> Message {
    Message {
        plugin: Some(plugin.to_owned()),
        body: body.to_owned().into(),
        ..Message::default()
    }
}

/// What becomes of each task.
enum Sign {
    Started(Instant),
    Finished(Instant),
    Settled,
    HogStarted,
    HogEnded,
}

fn sign(event: &Event<'_>) -> Option<Sign> {
    let is_hog = |plugin: &str| plugin == "hog";
    Some(match event {
        Event::Started { run, .. } if is_hog(run.plugin) => Sign::HogStarted,
        Event::Started { .. } => Sign::Started(Instant::now()),
        Event::Finished { run, .. } if is_hog(run.plugin) => Sign::HogEnded,
        Event::Finished { .. } => Sign::Finished(Instant::now()),
        Event::Settled { run, .. } | Event::NotSettled { run, .. } if !is_hog(run.plugin) => {
            Sign::Settled
        }
        _ => return None,
    })
}

/// Counts the connections that were lost, and says why.
struct Losses(Arc<AtomicU64>);

impl Observer for Losses {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Broker(Notice::Disconnected(_, why)) = event {
            self.0.fetch_add(1, Ordering::Relaxed);
            output::say(&format!("a connection was lost: {why}"));
        }
    }
}

/// Looks again and again whether the threads that serve the broker get to run when they should.
struct Lateness {
    end: tokio::sync::oneshot::Sender<()>,
    most: tokio::task::JoinHandle<Duration>,
}

impl Lateness {
    fn watch() -> Lateness {
        let (end, mut ended) = tokio::sync::oneshot::channel();
        let most = tokio::spawn(async move {
            let mut most = Duration::ZERO;
            loop {
                let due = tokio::time::Instant::now() + LOOK_EVERY;
                tokio::select! {
                    () = tokio::time::sleep_until(due) => most = most.max(due.elapsed()),
                    _ = &mut ended => return most,
                }
            }
        });
        Lateness { end, most }
    }

    async fn most(self) -> Duration {
        // It is there until it is told to end.
        let _ = self.end.send(());
        self.most.await.unwrap_or_default()
    }
}
