//! [`RabbitConsumer`]: takes deliveries from one queue over a connection of its own, and connects again
//! for ever. What came on a lost channel is never acked on another.

mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::turns::Ground;
use super::connection::{Connector, Events, Link, Trouble, over};
use super::hold::Desk;
use super::line::{self, Ledger, Line};
use super::pace::Pace;
use super::pause;
use super::scheduler::Scheduler;
use super::stop::{Stop, Switch, switch};
use super::topology;
use crate::broker::{BrokerError, Consumer, Delivery, Notice, SettleError};
use crate::settlement::Settlement;
use crate::units::show_duration;

/// How long giving back what was not handed out may take; then the broker does it by itself.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// How many deliveries may lie between the loop and the worker: more than any prefetch, and the one before
/// it, lets the broker send. So it is these that bound them, and the loop never waits for the worker.
const ON_THE_WAY: usize = 2 * u16::MAX as usize;

/// How long after one of its parts has failed a connection may say that it is over, and why.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One queue's deliveries.
pub(super) struct RabbitConsumer {
    deliveries: mpsc::Receiver<Delivery>,
    prefetch: watch::Sender<u16>,
    stop: Switch,
}

/// What the consuming loop needs to connect, the first time and again.
struct Source {
    connector: Arc<Connector>,
    desk: Arc<Desk>,
    /// Of a line that is opened now.
    prefetch: watch::Receiver<u16>,
}

/// One connection's worth of consuming. A new one shares nothing with the one before.
struct Generation {
    link: Link,
    events: Events,
    /// None while the queue is paused.
    line: Option<(Line, Ledger)>,
    /// None: it cannot be seen whether the queue is paused.
    is_paused: Option<watch::Sender<bool>>,
}

/// How a generation ended.
enum End {
    /// We were asked to stop, and nothing is held any more.
    Stopped,
    /// The broker or the way to it.
    Lost(String),
}

impl RabbitConsumer {
    /// Connects, makes the queue if there is none, and starts the loops that take from it and move what is
    /// due to it.
    pub(super) async fn start(
        connector: Arc<Connector>,
        desk: Arc<Desk>,
        prefetch: u16,
    ) -> Result<(Self, JoinHandle<()>), BrokerError> {
        // Zero would mean no bound at all.
        let (prefetch, wanted) = watch::channel(prefetch.max(1));
        let source = Source {
            connector,
            desk,
            prefetch: wanted,
        };
        let first = source.open().await?;
        let (sender, deliveries) = mpsc::channel(ON_THE_WAY);
        let (stop, stopped) = switch();
        let scheduler = Scheduler {
            connector: source.connector.clone(),
            desk: source.desk.clone(),
        };
        let scheduled = scheduler.run(stopped.clone());
        let supervised = source.supervise(first, sender, stopped);
        let consuming = async {
            tokio::join!(supervised, scheduled);
        };
        let consumer = RabbitConsumer {
            deliveries,
            prefetch,
            stop,
        };
        Ok((consumer, tokio::spawn(consuming)))
    }
}

/// Has a delivery that nobody was handed delivered again.
async fn release(delivery: Delivery) -> Result<(), SettleError> {
    let record = delivery.message.record.clone();
    let after = Duration::ZERO;
    delivery.settle(Settlement::Release { after, record }).await
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self, into: &mut Vec<Delivery>, limit: usize) {
        let start = into.len();
        loop {
            if self.deliveries.recv_many(into, limit).await == 0 {
                return;
            }
            // What was on its way when a connection broke is delivered again.
            let mut index = start;
            while let Some(delivery) = into.get(index) {
                if delivery.hold.is_live() {
                    index += 1;
                } else {
                    into.remove(index);
                }
            }
            if into.len() > start {
                return;
            }
        }
    }

    fn set_prefetch(&mut self, prefetch: u16) {
        self.prefetch.send_replace(prefetch.max(1));
    }

    async fn stop(&mut self) {
        self.stop.stop();
        let give_back = async {
            let mut releases = FuturesUnordered::new();
            while let Some(delivery) = self.deliveries.recv().await {
                releases.push(release(delivery));
            }
            // A release that fails is a message that the broker gives back by itself.
            while releases.next().await.is_some() {}
        };
        // What is not given back in time goes back when the connection ends.
        let _ = timeout(GIVE_BACK, give_back).await;
        self.deliveries.close();
    }
}

impl Source {
    async fn open(&self) -> Result<Generation, BrokerError> {
        let queue = &self.desk.queue;
        let what = format!("cannot take tasks from queue `{queue}`");
        let (link, events) = self.connector.open("consuming").await?;
        let opened = async {
            topology::ensure_queue(&link, queue.as_str()).await?;
            let is_paused = self.look_for_pause(&link).await;
            let line = match is_paused {
                Some(true) => None,
                Some(false) | None => {
                    let prefetch = *self.prefetch.borrow();
                    Some(Line::open(&link, queue.as_str(), prefetch).await?)
                }
            };
            Ok((line, is_paused.map(watch::Sender::new)))
        };
        let (line, is_paused) = opened
            .await
            .map_err(|trouble: Trouble| trouble.while_doing(&what))?;
        Ok(Generation {
            link,
            events,
            line,
            is_paused,
        })
    }

    /// Whether the queue is paused. None, and a warning: the broker does not let us see it.
    async fn look_for_pause(&self, link: &Link) -> Option<bool> {
        let queue = &self.desk.queue;
        match pause::prepare(link, queue).await {
            Ok(is_paused) => Some(is_paused),
            Err(trouble) => {
                (self.desk.notices)(Notice::Warning(format!(
                    "this worker does not see it when queue `{queue}` is paused: {}; scutwork doctor says what to grant",
                    trouble.text
                )));
                None
            }
        }
    }

    async fn supervise(
        self,
        first: Generation,
        deliveries: mpsc::Sender<Delivery>,
        mut stopped: Stop,
    ) {
        let mut pace = Pace::new();
        let mut opened: Result<_, BrokerError> = Ok(first);
        // Gone once we were asked to stop, by which the consumer knows that no more will come.
        let mut deliveries = Some(deliveries);
        loop {
            let why = match opened {
                Ok(generation) => {
                    (self.desk.notices)(match generation.line {
                        Some(_) => Notice::Connected(self.desk.queue.clone()),
                        None => Notice::Paused(self.desk.queue.clone()),
                    });
                    let since = Instant::now();
                    match self.run(generation, &mut deliveries, &mut stopped).await {
                        End::Stopped => return,
                        End::Lost(why) => {
                            pace.lived(since.elapsed());
                            why
                        }
                    }
                }
                Err(error) => error.to_string(),
            };
            if stopped.is_asked() {
                return;
            }
            let wait = pace.wait();
            (self.desk.notices)(Notice::Disconnected(
                self.desk.queue.clone(),
                format!("{why}; trying again within {}", show_duration(wait)),
            ));
            tokio::select! {
                () = self.connector.wait(wait, &mut pace) => {}
                () = stopped.asked() => return,
            }
            opened = tokio::select! {
                opened = self.open() => opened,
                () = stopped.asked() => return,
            };
        }
    }

    async fn run(
        &self,
        generation: Generation,
        deliveries: &mut Option<mpsc::Sender<Delivery>>,
        stopped: &mut Stop,
    ) -> End {
        let Generation {
            link,
            mut events,
            line,
            is_paused,
        } = generation;
        let (ledgers, kept) = mpsc::unbounded_channel();
        let ground = Ground {
            link: &link,
            ledgers,
        };
        let line = line.map(|opened| ground.lay(opened));
        let paused = is_paused.as_ref().map(watch::Sender::subscribe);
        let follow_pause = async {
            match &is_paused {
                Some(is_paused) => pause::follow(&link, &self.desk.queue, is_paused).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            why = self.hand_out(ground, line, deliveries, stopped, paused) => End::Lost(why),
            why = follow_pause => End::Lost(why),
            written = line::keep(kept) => match written {
                Ok(settled) => {
                    self.see_done(settled).await;
                    End::Stopped
                }
                Err(trouble) => End::Lost(self.explain(trouble)),
            },
            why = over(&mut events, |_| {}) => return End::Lost(why),
        };
        match end {
            End::Stopped => {
                link.close().await;
                End::Stopped
            }
            // Of a connection that breaks, its parts may hear first, and less.
            End::Lost(why) => {
                let cause = timeout(LAST_WORD, over(&mut events, |_| {})).await;
                End::Lost(cause.unwrap_or(why))
            }
        }
    }
}
