//! The contract with brokers: what a worker and a producer need of one, in words and types.
//!
//! Whatever carries the messages implements [`Broker`], and passes the suite in `tests/` whose test
//! names are the guarantees. Nothing here knows what a plugin or a sandbox is.

mod dead_letters;
pub mod rabbitmq;
pub mod sqlite;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::dead_letters::{Buried, DeadLetters, Kept};
use crate::name::QueueName;
use crate::settlement::{Reply, Settlement};

/// A message as it travels, whichever broker carries it. Nothing in it has been checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The plugin's name: AMQP's property `type`, or else the header `plugin`.
    pub plugin: Option<String>,
    /// The task's id: AMQP's property `message_id`.
    pub id: Option<String>,
    /// What the producer says the body is.
    pub content_type: Option<String>,
    /// The producer's headers as text; the broker's and the host's own bookkeeping is not among
    /// them.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub body: Bytes,
    /// Where a reply goes, if anyone waits for one.
    pub reply_to: Option<ReplyTo>,
    /// Higher runs first where the queue has priorities.
    pub priority: Option<u8>,
    /// What the host keeps with the message from one delivery to the next.
    pub record: Record,
    /// What could not be read of it, and what to do. Such a message is no task.
    pub unreadable: Option<String>,
}

/// An address for replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The queue that replies go to, AMQP's property `reply_to`.
    pub address: String,
    /// What the requester tells its replies apart by, AMQP's property `correlation_id`.
    pub correlation_id: Option<String>,
    /// The requester also wants to hear of retries and of parking, not of the end alone. Header `scutwork-notify`.
    pub notify: bool,
}

/// The host's bookkeeping, which travels with the message: headers `scutwork-*` on AMQP, columns in
/// a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which attempt the next run is, from 1.
    pub attempt: u32,
    /// Since when the task waits for a plugin that is not here.
    pub parked_since: Option<SystemTime>,
    /// The task was there when workers died, and is to run alone to show whether it was the cause.
    pub on_trial: bool,
}

impl Default for Record {
    fn default() -> Self {
        Record {
            attempt: 1,
            parked_since: None,
            on_trial: false,
        }
    }
}

/// One hand-over of a message. It stays this worker's until it is settled or the worker's hold is
/// lost; whoever has it must settle it.
pub struct Delivery {
    /// What was handed over.
    pub message: Message,
    /// How many times a worker died, or lost its broker, while it held this message; of a suspect,
    /// since it is one.
    pub crashes: u32,
    /// What a crash would tell.
    pub standing: Standing,
    /// The broker's side of the hand-over.
    pub hold: Box<dyn Hold>,
}

/// How a message was handed over, and so what a crash tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Among others by a [`Consumer`]: a crash is counted against all of them.
    Ordinary,
    /// By [`Suspects`], to a worker that runs nothing else.
    OnTrial,
    /// Among others, from a queue whose owner has policies for what comes back too often.
    Native,
}

/// A broker's hold on one delivery.
pub trait Hold: Send + Sync {
    /// Whether the hand-over still stands. Once false, the broker gives the message to someone
    /// again, so running it here would only do the work twice.
    fn is_live(&self) -> bool;

    /// Tells the broker what becomes of the message, and returns when it is safe there.
    ///
    /// Whatever the settlement publishes is confirmed before the original goes, so that a crash in
    /// between may run a task twice but never loses one.
    ///
    /// # Errors
    /// [`SettleError::Lost`] when the hold ended first; the message will be delivered again.
    /// [`SettleError::Unacked`] when it ended between publishing and the ack, which may have arrived.
    /// [`SettleError::Failed`] when the broker refused; the message stays held or is delivered
    /// again, and is not lost.
    ///
    /// Not cancel safe: a dropped call may or may not have settled.
    fn settle(
        self: Box<Self>,
        message: Message,
        settlement: Arc<Settlement>,
    ) -> BoxFuture<'static, Result<(), SettleError>>;
}

impl Delivery {
    /// [`Hold::settle`] on this delivery's own hold.
    pub fn settle(
        self,
        settlement: impl Into<Arc<Settlement>>,
    ) -> BoxFuture<'static, Result<(), SettleError>> {
        self.hold.settle(self.message, settlement.into())
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("crashes", &self.crashes)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

/// Why a delivery could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The hold on the delivery ended before: the connection was cut, or the lease was taken over.
    #[error("the hold on the delivery was lost; the broker delivers it again")]
    Lost,
    /// All that the settlement publishes is safe, but the hold was lost while the original was acked.
    #[error("the hold on the delivery was lost with its ack; the broker may deliver it again")]
    Unacked,
    /// The broker said no, or could not.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// Why a broker could not be used. Which of the two decides between trying again and giving up.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not reachable now; the same call may work later.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
    /// It answered, and said no: a wrong password, a missing permission, a file that is not a
    /// queue. Trying again does not help.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

/// Carries messages from producers to workers, at least once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// What a person calls this broker: its URL, without a password.
    fn name(&self) -> String;

    /// Puts messages on a queue, making the queue if there is none, and returns once the broker has
    /// confirmed every one. With `after`, they are due that much later (to within a second or 2 %).
    ///
    /// Either all are confirmed or the error says so; after an error, some may be on the queue.
    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError>;

    /// Starts taking messages from a queue, making the queue if there is none.
    ///
    /// `prefetch` bounds how many deliveries may be unsettled at once, until
    /// [`Consumer::set_prefetch`] says otherwise. The first connection is made
    /// before this returns, so that a broker that is down or refuses is known at once; later ones
    /// are the consumer's own business.
    async fn consume(
        &self,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Opens the way to a queue's suspects, and makes nothing: there is one for every worker, and
    /// hardly ever a suspect.
    async fn suspects(&self, queue: &QueueName) -> Result<Box<dyn Suspects>, BrokerError>;

    /// Opens an address of our own for replies.
    async fn replies(&self) -> Result<Box<dyn Replies>, BrokerError>;

    /// How many messages a queue has in each state. None: there is no such queue.
    async fn depth(&self, queue: &QueueName) -> Result<Option<Depth>, BrokerError>;

    /// Pauses a queue, or resumes it, for every worker and until the other is asked for: the mark
    /// outlasts workers and the broker's restart. To ask for what is so already changes nothing.
    ///
    /// Consumers of a paused queue take nothing more from it within seconds, and say so by
    /// [`Notice::Paused`]; what the broker had sent them by then still runs. Producers go on.
    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<(), BrokerError>;

    /// Whether a queue is paused.
    async fn is_paused(&self, queue: &QueueName) -> Result<bool, BrokerError>;

    /// Removes one part of a queue's messages for good, and says how many there were. What workers
    /// hold stays. None: there is no such queue.
    async fn purge(&self, queue: &QueueName, part: Part) -> Result<Option<u64>, BrokerError>;

    /// Begins a pass over a queue's dead letters, of which there are none where there is no queue.
    async fn dead_letters(&self, queue: &QueueName) -> Result<Box<dyn DeadLetters>, BrokerError>;

    /// Ends connections in order. Consumers and passes must have been stopped before.
    async fn close(&self);
}

/// Takes deliveries from one queue. It reconnects by itself, for ever, and says so by its
/// [`Notice`]s.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for at least one delivery and adds up to `limit` to `into`; none are added once
    /// [`Consumer::stop`] has been called and what was on its way has been handed out.
    ///
    /// Cancel safe: a dropped call has taken nothing.
    async fn next(&mut self, into: &mut Vec<Delivery>, limit: usize);

    /// Says how many deliveries may be unsettled at once from now on; zero counts as one. It takes effect
    /// soon after. What was handed out by then stays what it is, and until it is settled, up to as many as
    /// before may be unsettled beside the new number.
    fn set_prefetch(&mut self, prefetch: u16);

    /// Stops taking messages, and gives back to the queue those that [`Consumer::next`] has not
    /// handed out. Deliveries that were handed out can still be settled.
    async fn stop(&mut self);
}

/// Hands out the suspects of one queue: messages released [on trial](Record::on_trial). No consumer
/// gets them, and they count as ready.
///
/// They are asked for one by one and never sent ahead, so that a worker can see to it first that
/// nothing else runs.
#[async_trait]
pub trait Suspects: Send {
    /// Waits until there seems to be a suspect, and the queue is not paused. It is seen within seconds,
    /// whichever process released it. Trouble with the broker is waited out.
    ///
    /// Cancel safe.
    async fn waiting(&mut self);

    /// Takes a suspect. None: there is none, or the broker cannot be asked now.
    ///
    /// Not cancel safe: what a dropped call took comes back with a crash.
    async fn take(&mut self) -> Option<Delivery>;
}

/// Receives replies at one address.
#[async_trait]
pub trait Replies: Send {
    /// What producers put into [`ReplyTo::address`].
    fn address(&self) -> &str;

    /// Puts messages on a queue as [`Broker::publish`] does, by whatever way lets their replies
    /// come here. (AMQP's direct reply-to ties replies to the channel of the request.)
    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError>;

    /// Waits for the next reply: the requester's correlation id and the reply.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// When the address is lost, and with it replies that were to come. The tasks are not.
    async fn next(&mut self) -> Result<(Option<String>, Reply), BrokerError>;

    /// Gives the address up. One that is only dropped is given up too, but leaves the broker without a goodbye,
    /// which it may warn of in its log.
    async fn close(self: Box<Self>);
}

/// How many messages a queue has in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// Waiting for a worker.
    pub ready: u64,
    /// Held by workers. None: this broker does not tell.
    pub running: Option<u64>,
    /// Due later: retries, parked tasks and delayed submits.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// How many consumers take from it. None: this broker does not tell.
    pub consumers: Option<u64>,
}

/// Messages of a queue that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that wait for a worker.
    Ready,
    /// Those that are due later.
    Delayed,
    /// The dead letters.
    Dead,
}

/// What a broker has to say between deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Taking messages from a queue, at the start or again.
    Connected(QueueName),
    /// Not taking messages, because the queue was paused; [`Notice::Connected`] tells of its end.
    Paused(QueueName),
    /// Not taking messages from a queue; the text says why and when it tries again.
    Disconnected(QueueName, String),
    /// The broker holds publishing back: a memory or disk alarm.
    Blocked(String),
    /// Publishing goes on.
    Unblocked,
    /// Something an operator should know of; work goes on.
    Warning(String),
}

/// Where a broker's notices go. It is called from the broker's own loops and must not block.
pub type NoticeSink = std::sync::Arc<dyn Fn(Notice) + Send + Sync>;
