//! [`RabbitConsumer`]: takes deliveries from one queue over a connection of its own, and connects again
//! for ever. What came on a lost channel is never acked on another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::acks::Acks;
use super::connection::{Connector, Events, Link, Trouble, over};
use super::hold::{Desk, RabbitHold};
use super::line::{self, Ledger, Line};
use super::message;
use super::pace::Pace;
use super::pause::{self, Seen};
use super::scheduler::Scheduler;
use super::stop::{Stop, Switch, switch};
use super::topology;
use super::{SettlementMode, consumer_timeout};
use crate::broker::{BrokerError, Consumer, Delivery, Notice, Standing};
use crate::settlement::Settlement;
use crate::units::show_duration;

/// How long giving back what was not handed out may take; then the broker does it by itself.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// How long nothing may come, while nothing is held, before the subscription is made anew. A queue that
/// is deleted and made again at once can leave one behind that nothing comes by, and the broker does not
/// tell: it cancels those alone whose queue it still finds gone when it looks.
const SILENCE: Duration = Duration::from_secs(10);

/// How long after one of its parts has failed a connection may say that it is over, and why.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One queue's deliveries.
pub(super) struct RabbitConsumer {
    deliveries: mpsc::Receiver<Delivery>,
    stop: Switch,
}

/// What the consuming loop needs to connect, the first time and again.
struct Source {
    connector: Arc<Connector>,
    desk: Arc<Desk>,
    prefetch: u16,
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

/// What the lines of one connection are opened on.
struct Ground<'a> {
    link: &'a Link,
    /// Where every line's ledger goes.
    ledgers: mpsc::UnboundedSender<Ledger>,
}

/// Why a subscription, or the wait for one, came to its end in order.
enum Turn {
    Stopped,
    Paused,
    Resumed,
    /// There is another line, and nothing comes by this one any more.
    Renewed(Box<Line>),
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
        let source = Source {
            connector,
            desk,
            // Zero would mean no bound at all.
            prefetch: prefetch.max(1),
        };
        let first = source.open().await?;
        let (sender, deliveries) = mpsc::channel(source.prefetch.into());
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
        Ok((RabbitConsumer { deliveries, stop }, tokio::spawn(consuming)))
    }
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

    async fn stop(&mut self) {
        self.stop.stop();
        let give_back = async {
            let mut releases = FuturesUnordered::new();
            while let Some(delivery) = self.deliveries.recv().await {
                let record = delivery.message.record.clone();
                releases.push(delivery.settle(Settlement::Release {
                    after: Duration::ZERO,
                    record,
                }));
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
                Some(false) | None => Some(Line::open(&link, queue.as_str(), self.prefetch).await?),
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
                () = self.connector.wait(wait) => {}
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
                Ok(()) => End::Stopped,
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

    /// Hands deliveries to the consumer, but none while the queue is paused, until it is stopped; then
    /// waits without end while what was handed out is settled. Returns why a line broke.
    async fn hand_out(
        &self,
        ground: Ground<'_>,
        mut line: Option<Line>,
        deliveries: &mut Option<mpsc::Sender<Delivery>>,
        stopped: &mut Stop,
        paused: Option<watch::Receiver<bool>>,
    ) -> String {
        let Some(sender) = deliveries.clone() else {
            return "stopped".to_owned();
        };
        let mut paused = Seen(paused);
        loop {
            let turn = match line.take() {
                Some(line) => {
                    self.take(&ground, line, &sender, stopped, &mut paused)
                        .await
                }
                None => Ok(tokio::select! {
                    () = stopped.asked() => Turn::Stopped,
                    () = paused.becomes(false) => Turn::Resumed,
                }),
            };
            match turn {
                Ok(Turn::Stopped) => break,
                Ok(Turn::Paused) => {
                    (self.desk.notices)(Notice::Paused(self.desk.queue.clone()));
                }
                Ok(Turn::Resumed) => match self.line(&ground).await {
                    Ok(resumed) => {
                        line = Some(resumed);
                        (self.desk.notices)(Notice::Connected(self.desk.queue.clone()));
                    }
                    Err(why) => return why,
                },
                Ok(Turn::Renewed(fresh)) => line = Some(*fresh),
                Err(why) => return why,
            }
        }
        *deliveries = None;
        drop((sender, ground));
        std::future::pending().await
    }

    /// Takes from one line and ends it when asked to. What the broker had sent by then is handed out too:
    /// to put it back would count as a crash.
    ///
    /// # Errors
    /// Why the line broke.
    async fn take(
        &self,
        ground: &Ground<'_>,
        mut line: Line,
        sender: &mpsc::Sender<Delivery>,
        stopped: &mut Stop,
        paused: &mut Seen,
    ) -> Result<Turn, String> {
        let mut ending = None;
        loop {
            let turn = tokio::select! {
                biased;
                () = stopped.asked(), if ending.is_none() => Turn::Stopped,
                () = paused.becomes(true), if ending.is_none() => Turn::Paused,
                next = line.stream.next() => match (next, ending.take()) {
                    (Some(Ok(delivered)), still_ending) => {
                        let delivery = self.delivery(delivered, &line.acks);
                        // Whoever closes the other end has asked us to stop.
                        let _ = sender.send(delivery).await;
                        ending = still_ending;
                        continue;
                    }
                    (Some(Err(error)), _) => return Err(self.explain(error.into())),
                    (None, Some(turn)) => return Ok(turn),
                    (None, None) => return Err(format!(
                        "the broker ended the subscription to queue `{}`; it was deleted, or a task was unsettled for too long",
                        self.desk.queue
                    )),
                },
                () = tokio::time::sleep(SILENCE), if ending.is_none() => {
                    // What is held may be what keeps the broker from sending more.
                    if !line.is_idle() {
                        continue;
                    }
                    // Before the old one ends: a queue may go away with its last subscription.
                    Turn::Renewed(Box::new(self.line(ground).await?))
                }
            };
            line.cancel()
                .await
                .map_err(|trouble| self.explain(trouble))?;
            ending = Some(turn);
        }
    }

    /// Opens another line, to a queue that may have been made anew.
    async fn line(&self, ground: &Ground<'_>) -> Result<Line, String> {
        let Desk { queue, .. } = &*self.desk;
        let opened = Line::open(ground.link, queue.as_str(), self.prefetch).await;
        opened
            .map(|opened| ground.lay(opened))
            .map_err(|trouble| self.explain(trouble))
    }

    fn explain(&self, trouble: Trouble) -> String {
        consumer_timeout::explain(&trouble, self.desk.consumer_timeout).unwrap_or(trouble.text)
    }

    fn delivery(&self, delivered: lapin::message::Delivery, acks: &Acks) -> Delivery {
        let original = delivered.properties;
        Delivery {
            message: message::read(&original, delivered.data),
            crashes: message::crashes(&original, delivered.redelivered),
            standing: match self.desk.mode {
                SettlementMode::Standard => Standing::Ordinary,
                SettlementMode::Native => Standing::Native,
            },
            hold: Box::new(RabbitHold {
                desk: self.desk.clone(),
                acks: acks.clone(),
                tag: delivered.delivery_tag,
                original,
            }),
        }
    }
}

impl Ground<'_> {
    /// Has the line's ledger kept.
    fn lay(&self, (line, ledger): (Line, Ledger)) -> Line {
        // Whoever keeps them ends no sooner than the connection.
        let _ = self.ledgers.send(ledger);
        line
    }
}
