//! [`RabbitMq`]: the contract with brokers kept on AMQP 0-9-1. Nothing outside of this module names the
//! client library.
//!
//! One connection publishes, and each consumer has another that takes and acks: while the broker holds
//! publishing back, acks must go through. One of all that consume from a queue has one more, for what is
//! due later. Each is supervised by a loop that drops everything and
//! connects again for ever.

mod acks;
mod address;
pub mod baseline;
mod confirming;
mod connection;
mod consumer;
mod consumer_timeout;
mod dead_letters;
mod delay;
pub mod examination;
mod greeting;
mod hold;
mod inlet;
mod known;
mod line;
mod lock;
mod loops;
mod message;
mod outlet;
mod pace;
mod pause;
mod publisher;
mod repair;
mod replies;
mod reply_address;
mod scheduler;
mod stop;
mod suspects;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use async_trait::async_trait;
use futures_util::StreamExt;

use self::address::Address;
use self::connection::Connector;
use self::consumer::RabbitConsumer;
use self::dead_letters::RabbitDeadLetters;
use self::delay::Stay;
pub use self::greeting::Greeting;
use self::hold::Desk;
use self::loops::Loops;
use self::outlet::{Destination, NotPublished, Outlet, Patience};
use self::pace::Pace;
use self::publisher::Publisher;
use self::replies::RabbitReplies;
use self::suspects::RabbitSuspects;
use super::{
    Broker, BrokerError, Consumer, DeadLetters, Depth, Message, Notice, NoticeSink, Part, Replies,
    Suspects,
};
use crate::name::QueueName;
use crate::units::show_duration;

/// How many messages may wait for their confirms at once.
const WINDOW: usize = 1000;

/// For how long a message is offered to a queue that does not take it. One that is being made is declared
/// as there before it takes any, and so is one whose leader moves: a moment, but seconds where a broker is busy.
const OFFERED_FOR: Duration = Duration::from_secs(20);

/// When that has gone on for so long, it is told.
const OFFERED_IN_SILENCE: Duration = Duration::from_secs(4);

/// RabbitMQ's own default for how long a delivery may be unsettled.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How to reach a RabbitMQ and who we are there.
#[derive(Clone)]
pub struct RabbitMqOptions {
    /// `amqp://` or `amqps://`; the nodes of a cluster, tried in turn.
    pub urls: Vec<String>,
    /// Goes before the user name in the URLs.
    pub user: Option<String>,
    /// Goes before the password in the URLs.
    pub password: Option<String>,
    /// Certificates, in PEM, that `amqps://` trusts beside the system's own.
    pub authorities: Option<String>,
    /// What the broker shows our connections as.
    pub connection_name: String,
    /// How deliveries are settled.
    pub settlement: SettlementMode,
    /// How long the broker lets a delivery be unsettled; it does not tell by itself.
    pub consumer_timeout: Duration,
    /// How far apart heartbeats are, in whole seconds; goes before what the URLs say. A peer that is
    /// silent for twice as long is gone.
    pub heartbeat: Option<Duration>,
}

impl RabbitMqOptions {
    /// These nodes, with what their URLs say and no more.
    pub fn new(urls: Vec<String>) -> Self {
        RabbitMqOptions {
            urls,
            user: None,
            password: None,
            authorities: None,
            connection_name: "scutwork".to_owned(),
            settlement: SettlementMode::default(),
            consumer_timeout: CONSUMER_TIMEOUT,
            heartbeat: None,
        }
    }

    /// Whether the URLs can be read, without asking a broker.
    ///
    /// # Errors
    /// A sentence that says what is wrong with one of them, without its password.
    pub fn check(&self) -> Result<(), String> {
        self.addresses().map(drop)
    }

    fn addresses(&self) -> Result<Vec<Address>, String> {
        let (user, password) = (self.user.as_deref(), self.password.as_deref());
        let addresses: Vec<Address> = self
            .urls
            .iter()
            .map(|url| {
                let address = Address::parse(url, user, password)?;
                match self.heartbeat {
                    Some(heartbeat) => address.with_heartbeat(heartbeat),
                    None => Ok(address),
                }
            })
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err(
                "no broker URL is given; write amqp://USER:PASSWORD@HOST:PORT/VHOST".to_owned(),
            );
        }
        Ok(addresses)
    }
}

/// Without the passwords, which the URLs may hold too.
impl fmt::Debug for RabbitMqOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqOptions")
            .field("user", &self.user)
            .field("connection_name", &self.connection_name)
            .field("settlement", &self.settlement)
            .finish_non_exhaustive()
    }
}

/// How deliveries are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SettlementMode {
    /// Retries, delays and dead letters are the host's: a copy is published and confirmed, then the
    /// original is acked.
    #[default]
    Standard,
    /// They are the queue owner's: a retry is `basic.nack` with requeue, a dead letter without, and
    /// nothing but replies is published.
    Native,
}

/// A RabbitMQ, or a cluster of them.
pub struct RabbitMq {
    connector: Arc<Connector>,
    publisher: Arc<Publisher>,
    notices: NoticeSink,
    settlement: SettlementMode,
    consumer_timeout: Duration,
    /// Of consumers and of what else takes messages.
    loops: Loops,
    publishing: Loops,
}

impl RabbitMq {
    /// Connects. After this, a connection that breaks is made again for ever, and `notices` hears of it.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for a broken URL, a wrong password or a missing virtual host;
    /// [`BrokerError::Unavailable`] when no broker answers. One sentence each, with the fix.
    pub async fn connect(
        options: RabbitMqOptions,
        notices: NoticeSink,
    ) -> Result<Self, BrokerError> {
        let connector = Connector::new(&options)?;
        let (publisher, supervised) = Publisher::start(connector.clone(), notices.clone()).await?;
        let publishing = Loops::default();
        publishing.own(supervised);
        Ok(RabbitMq {
            connector,
            publisher: Arc::new(publisher),
            notices,
            settlement: options.settlement,
            consumer_timeout: options.consumer_timeout,
            loops: Loops::default(),
            publishing,
        })
    }

    async fn outlet(&self) -> Result<Arc<Outlet>, BrokerError> {
        let outlet = self.publisher.outlet().await;
        outlet.map_err(|why| BrokerError::Unavailable(anyhow!(why)))
    }

    fn desk(&self, queue: &QueueName) -> Arc<Desk> {
        Arc::new(Desk {
            queue: queue.clone(),
            publisher: self.publisher.clone(),
            mode: self.settlement,
            notices: self.notices.clone(),
            consumer_timeout: self.consumer_timeout,
            is_keeping_suspects: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn name(&self) -> String {
        let addresses = self.connector.addresses.iter().map(Address::to_string);
        addresses.collect::<Vec<_>>().join(",")
    }

    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError> {
        let outlet = self.outlet().await?;
        publish_all(&outlet, &self.notices, queue, messages, after).await
    }

    async fn consume(
        &self,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let (consumer, consuming) =
            RabbitConsumer::start(self.connector.clone(), self.desk(queue), prefetch).await?;
        self.loops.own(consuming);
        Ok(Box::new(consumer))
    }

    async fn suspects(&self, queue: &QueueName) -> Result<Box<dyn Suspects>, BrokerError> {
        let (connector, loops) = (self.connector.clone(), self.loops.clone());
        let suspects = RabbitSuspects::new(connector, self.desk(queue), loops);
        Ok(Box::new(suspects))
    }

    async fn replies(&self) -> Result<Box<dyn Replies>, BrokerError> {
        Ok(Box::new(
            RabbitReplies::open(&self.connector, self.notices.clone()).await?,
        ))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Option<Depth>, BrokerError> {
        let depth = self.outlet().await?.depth(queue).await;
        depth.map_err(|trouble| trouble.while_doing(&format!("cannot look at queue `{queue}`")))
    }

    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<(), BrokerError> {
        let outlet = self.outlet().await?;
        let done = if is_paused {
            pause::mark(outlet.link(), queue).await
        } else {
            pause::unmark(outlet.link(), queue).await
        };
        let verb = if is_paused { "pause" } else { "resume" };
        done.map_err(|trouble| trouble.while_doing(&format!("cannot {verb} queue `{queue}`")))
    }

    async fn is_paused(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let outlet = self.outlet().await?;
        let paused = pause::is_paused(outlet.link(), queue).await;
        paused.map_err(|trouble| trouble.while_doing(&format!("cannot look at queue `{queue}`")))
    }

    async fn purge(&self, queue: &QueueName, part: Part) -> Result<Option<u64>, BrokerError> {
        let outlet = self.outlet().await?;
        let link = outlet.link();
        let purged = async {
            if topology::count(link, queue.as_str()).await?.is_none() {
                return Ok(None);
            }
            match part {
                Part::Ready => topology::purge_ready(link, queue).await,
                Part::Delayed => topology::purge_delays(link, queue).await.map(Some),
                // Before the first dead letter there is no queue for them.
                Part::Dead => topology::purge(link, &topology::dead_name(queue))
                    .await
                    .map(|removed| Some(removed.unwrap_or_default())),
            }
        };
        let purged: Result<_, connection::Trouble> = purged.await;
        purged.map_err(|trouble| trouble.while_doing(&format!("cannot purge queue `{queue}`")))
    }

    async fn dead_letters(&self, queue: &QueueName) -> Result<Box<dyn DeadLetters>, BrokerError> {
        let publisher = self.publisher.clone();
        let pass = RabbitDeadLetters::open(&self.connector, publisher, queue).await?;
        Ok(Box::new(pass))
    }

    async fn close(&self) {
        // They give back what they do not hand out, by what they publish.
        self.loops.end().await;
        self.publisher.stop();
        self.publishing.end().await;
    }
}

/// Publishes many messages, without waiting for one's confirm before the next.
async fn publish_all(
    outlet: &Outlet,
    notices: &NoticeSink,
    queue: &QueueName,
    messages: Vec<Message>,
    after: Option<Duration>,
) -> Result<(), BrokerError> {
    let stay = after.and_then(Stay::after);
    let to = match stay {
        Some(stay) => Destination::Delay(queue, stay.level),
        None => Destination::Queue(queue),
    };
    let what = format!("cannot publish to queue `{queue}`");
    let is_told = AtomicBool::new(false);
    let publish = |message: Message| {
        let (what, is_told) = (&what, &is_told);
        async move {
            let mut properties = message::write(&message).map_err(BrokerError::Refused)?;
            if let Some(stay) = stay {
                properties = message::put_off(properties, stay);
            }
            let (mut pace, began) = (Pace::new(), Instant::now());
            loop {
                let properties = properties.clone();
                let sent = outlet.publish(to, properties, &message.body, Patience::WhileBlocked);
                match sent.await {
                    Ok(()) => return Ok(()),
                    Err(NotPublished::Refused(why)) if began.elapsed() < OFFERED_FOR => {
                        let offered = began.elapsed();
                        if offered >= OFFERED_IN_SILENCE && !is_told.swap(true, Ordering::Relaxed) {
                            notices(Notice::Warning(format!(
                                "{what} yet: {why}; it is tried for {}",
                                show_duration(OFFERED_FOR)
                            )));
                        }
                        // The last try is when the time is over, and not long after.
                        let left = OFFERED_FOR.saturating_sub(offered);
                        tokio::time::sleep(pace.wait().min(left)).await;
                    }
                    Err(NotPublished::Trouble(trouble)) => return Err(trouble.while_doing(what)),
                    Err(NotPublished::Unroutable(why) | NotPublished::Refused(why)) => {
                        return Err(BrokerError::Unavailable(anyhow!("{what}: {why}")));
                    }
                }
            }
        }
    };
    let mut confirms = futures_util::stream::iter(messages)
        .map(publish)
        .buffered(WINDOW);
    while let Some(confirmed) = confirms.next().await {
        confirmed?;
    }
    Ok(())
}
