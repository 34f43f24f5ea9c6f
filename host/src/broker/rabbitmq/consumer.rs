//! [`RabbitConsumer`]: takes deliveries from one queue over a connection of its own, and connects again
//! for ever. What came on a lost channel is never acked on another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer as Stream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SettlementMode;
use super::acks::{self, Ack, Acks};
use super::connection::{Connector, Events, Link, Trouble, answer, over};
use super::hold::{Desk, RabbitHold};
use super::message;
use super::pace::Pace;
use super::pause::{self, Seen};
use super::stop::{Stop, Switch, switch};
use super::topology;
use crate::broker::{BrokerError, Consumer, Delivery, Notice, Standing};
use crate::settlement::Settlement;
use crate::units::show_duration;

/// How long giving back what was not handed out may take; then the broker does it by itself.
const GIVE_BACK: Duration = Duration::from_secs(10);

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
    channel: Channel,
    /// None while the queue is paused.
    stream: Option<Stream>,
    /// None: it cannot be seen whether the queue is paused.
    is_paused: Option<watch::Sender<bool>>,
    acks: Acks,
    settled: mpsc::UnboundedReceiver<Ack>,
}

/// Why a subscription, or the wait for one, came to its end in order.
enum Turn {
    Stopped,
    Paused,
    Resumed,
}

/// How a generation ended.
enum End {
    /// We were asked to stop, and nothing is held any more.
    Stopped,
    /// The broker or the way to it.
    Lost(String),
}

impl RabbitConsumer {
    /// Connects, makes the queue if there is none, and starts the loop that takes from it.
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
        let supervised = source.supervise(first, sender, stopped);
        Ok((
            RabbitConsumer { deliveries, stop },
            tokio::spawn(supervised),
        ))
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
            let channel = link.channel().await?;
            answer(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
            let is_paused = self.look_for_pause(&link).await;
            let stream = match is_paused {
                Some(true) => None,
                Some(false) | None => Some(self.subscribe(&channel).await?),
            };
            Ok((channel, stream, is_paused.map(watch::Sender::new)))
        };
        let (channel, stream, is_paused) = opened
            .await
            .map_err(|trouble: Trouble| trouble.while_doing(&what))?;
        if self.desk.mode == SettlementMode::Standard {
            topology::reattach_delays(&link, queue).await;
        }
        let (acks, settled) = mpsc::unbounded_channel();
        Ok(Generation {
            link,
            events,
            channel,
            stream,
            is_paused,
            acks,
            settled,
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

    async fn subscribe(&self, channel: &Channel) -> Result<Stream, Trouble> {
        answer(channel.basic_consume(
            self.desk.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await
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
                    (self.desk.notices)(match generation.stream {
                        Some(_) => Notice::Connected,
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
            (self.desk.notices)(Notice::Disconnected(format!(
                "{why}; trying again in {}",
                show_duration(wait)
            )));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
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
            channel,
            stream,
            is_paused,
            acks,
            mut settled,
        } = generation;
        let paused = is_paused.as_ref().map(watch::Sender::subscribe);
        let follow_pause = async {
            match &is_paused {
                Some(is_paused) => pause::follow(&link, &self.desk.queue, is_paused).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            why = self.hand_out(&channel, stream, acks, deliveries, stopped, paused) => End::Lost(why),
            () = follow_pause => End::Lost("the mark of a pause is not followed any more".to_owned()),
            written = acks::write(&channel, self.prefetch, &mut settled) => match written {
                Ok(()) => End::Stopped,
                Err(trouble) => End::Lost(trouble.text),
            },
            why = over(&mut events, |_| {}) => End::Lost(why),
        };
        if matches!(end, End::Stopped) {
            link.close().await;
        }
        end
    }

    /// Hands deliveries to the consumer, but none while the queue is paused, until it is stopped; then
    /// waits without end while what was handed out is settled. Returns why the stream broke.
    async fn hand_out(
        &self,
        channel: &Channel,
        mut stream: Option<Stream>,
        acks: Acks,
        deliveries: &mut Option<mpsc::Sender<Delivery>>,
        stopped: &mut Stop,
        paused: Option<watch::Receiver<bool>>,
    ) -> String {
        let Some(sender) = deliveries.clone() else {
            return "stopped".to_owned();
        };
        let mut paused = Seen(paused);
        loop {
            let turn = match stream.take() {
                Some(stream) => {
                    self.take(channel, stream, &acks, &sender, stopped, &mut paused)
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
                Ok(Turn::Resumed) => match self.subscribe(channel).await {
                    Ok(resumed) => {
                        stream = Some(resumed);
                        (self.desk.notices)(Notice::Connected);
                    }
                    Err(trouble) => return trouble.text,
                },
                Err(why) => return why,
            }
        }
        *deliveries = None;
        drop((sender, acks));
        std::future::pending().await
    }

    /// Takes from one subscription and ends it when asked to. What the broker had sent by then is
    /// handed out too: to put it back would count as a crash.
    ///
    /// # Errors
    /// Why the stream broke.
    async fn take(
        &self,
        channel: &Channel,
        mut stream: Stream,
        acks: &Acks,
        sender: &mpsc::Sender<Delivery>,
        stopped: &mut Stop,
        paused: &mut Seen,
    ) -> Result<Turn, String> {
        let mut ending = None;
        loop {
            let asked = tokio::select! {
                biased;
                () = stopped.asked(), if ending.is_none() => Turn::Stopped,
                () = paused.becomes(true), if ending.is_none() => Turn::Paused,
                next = stream.next() => match (next, ending.take()) {
                    (Some(Ok(delivered)), still_ending) => {
                        let delivery = self.delivery(delivered, acks);
                        // Whoever closes the other end has asked us to stop.
                        let _ = sender.send(delivery).await;
                        ending = still_ending;
                        continue;
                    }
                    (Some(Err(error)), _) => return Err(Trouble::from(error).text),
                    (None, Some(turn)) => return Ok(turn),
                    (None, None) => return Err(format!(
                        "the broker ended the subscription to queue `{}`; was it deleted?",
                        self.desk.queue
                    )),
                },
            };
            let cancelled = channel.basic_cancel(stream.tag(), BasicCancelOptions::default());
            answer(cancelled).await.map_err(|trouble| trouble.text)?;
            ending = Some(asked);
        }
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
