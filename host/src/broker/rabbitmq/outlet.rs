//! [`Outlet`]: a channel that publishes, each message confirmed, and sees that what it publishes has
//! somewhere to go. Many publish at once; nobody waits for another's confirm.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::connection::{Link, Trouble, answer};
use super::delay::{self, LEVELS};
use super::message;
use super::reply_address;
use super::topology::{self, SAFE_AFTER};
use crate::broker::Depth;
use crate::name::QueueName;
use crate::units::show_duration;

/// How long a confirm may take. A quorum queue that elects a leader needs some seconds.
const CONFIRM: Duration = Duration::from_secs(30);

/// What permissions call the exchange without a name.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// A connection with channels in confirm mode. Once something went wrong on it, it is of no more use.
///
/// There are three, because lapin takes what the broker returns for whichever message is confirmed next on the
/// channel. What is returned in the ordinary course of things must not share one with what is never to be lost.
pub(super) struct Outlet {
    link: Link,
    /// For what goes to queues that we see to, which is returned only if somebody deletes one; and to requesters'
    /// own addresses, which never is.
    channel: Channel,
    /// For replies to queues: requesters go, and what is returned is asked after before it is given up.
    replies: Channel,
    /// For what is published to see whether somebody is there. One at a time, so that the answer is its own.
    knocker: tokio::sync::Mutex<Channel>,
    failure: watch::Sender<Option<String>>,
    alarm: watch::Sender<Option<String>>,
    known: Mutex<HashMap<QueueName, Arc<Known>>>,
}

/// What this connection has seen to be on the broker for one task queue.
struct Known {
    queue: OnceCell<()>,
    dead: OnceCell<()>,
    suspects: OnceCell<()>,
    levels: [OnceCell<()>; LEVELS as usize],
    /// How often a level was found or made, and of how many of these times whoever moves what is delayed was
    /// told.
    news: AtomicU32,
    told: AtomicU32,
    /// When all that was made here is old enough to be relied on.
    safe_from: Mutex<Option<Instant>>,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination<'a> {
    /// A task queue, now.
    Queue(&'a QueueName),
    /// A level of a task queue's delay queues.
    Delay(&'a QueueName, u32),
    /// The dead letters of a task queue.
    Dead(&'a QueueName),
    /// The suspects of a task queue.
    Suspects(&'a QueueName),
    /// A requester's address.
    Reply(&'a str),
}

/// What a publisher does while the broker holds publishing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Waits on: there is nowhere else to go, and a second try would only be a second copy.
    WhileBlocked,
    /// Gives up in time and says why.
    Bounded,
}

/// What is published, and to which queue by the exchange without a name.
#[derive(Clone)]
struct Outgoing<'a> {
    route: &'a str,
    properties: BasicProperties,
    body: &'a [u8],
    /// It is returned if no queue takes it.
    mandatory: bool,
}

/// Why a message was not confirmed.
#[derive(Debug)]
pub(super) enum NotPublished {
    /// No queue takes it.
    Unroutable(String),
    /// The broker said no to this message: a queue is full or has no majority.
    Refused(String),
    /// The connection or the topology is in trouble; the message may have arrived.
    Trouble(Trouble),
}

impl<'a> Destination<'a> {
    /// The task queue that it belongs to. None: to whoever asked for a reply.
    fn task_queue(self) -> Option<&'a QueueName> {
        match self {
            Destination::Queue(queue)
            | Destination::Delay(queue, _)
            | Destination::Dead(queue)
            | Destination::Suspects(queue) => Some(queue),
            Destination::Reply(_) => None,
        }
    }
}

impl Outlet {
    pub(super) async fn open(link: Link) -> Result<Self, Trouble> {
        Ok(Outlet {
            channel: confirming(&link).await?,
            replies: confirming(&link).await?,
            knocker: confirming(&link).await?.into(),
            link,
            failure: watch::Sender::new(None),
            alarm: watch::Sender::new(None),
            known: Mutex::default(),
        })
    }

    /// Publishes a message and returns when it is confirmed. Makes what is missing of its queues.
    pub(super) async fn publish(
        &self,
        to: Destination<'_>,
        properties: BasicProperties,
        body: &[u8],
        patience: Patience,
    ) -> Result<(), NotPublished> {
        self.make_ready(to, patience).await?;
        let route = route(to);
        let message = Outgoing {
            route: &route,
            properties,
            body,
            // By its documentation the broker returns what goes to a requester's own address, having told it.
            mandatory: !reply_address::is_direct(&route),
        };
        if to.task_queue().is_none() && message.mandatory {
            return self.send(&self.replies, message, patience).await;
        }
        let first = self.send(&self.channel, message.clone(), patience).await;
        let (Err(NotPublished::Unroutable(_)), Some(queue)) = (&first, to.task_queue()) else {
            return first;
        };
        // Somebody deleted the queue since we saw it.
        self.forget(queue);
        self.make_ready(to, patience).await?;
        self.send(&self.channel, message, patience).await
    }

    /// Publishes what only asks whether there is such a queue.
    async fn knock(&self, route: &str, properties: BasicProperties) -> Result<(), NotPublished> {
        let knocker = self.knocker.lock().await;
        let message = Outgoing {
            route,
            properties,
            body: b"",
            mandatory: true,
        };
        self.send(&knocker, message, Patience::Bounded).await
    }

    async fn send(
        &self,
        channel: &Channel,
        message: Outgoing<'_>,
        patience: Patience,
    ) -> Result<(), NotPublished> {
        let Outgoing {
            route,
            properties,
            body,
            mandatory,
        } = message;
        let options = BasicPublishOptions {
            mandatory,
            immediate: false,
        };
        let confirmed = async {
            channel
                .basic_publish("".into(), route.into(), options, body, properties)
                .await?
                .await
        };
        tokio::pin!(confirmed);
        let mut failure = self.failure.subscribe();
        loop {
            let confirmation = tokio::select! {
                confirmation = &mut confirmed => confirmation,
                why = failed(&mut failure) => return Err(trouble(None, why)),
                () = tokio::time::sleep(CONFIRM) => {
                    let alarm = self.alarm.borrow().clone();
                    match (alarm, patience) {
                        (Some(_), Patience::WhileBlocked) => continue,
                        (Some(why), Patience::Bounded) => return Err(held_back(&why)),
                        (None, _) => {
                            let why = format!("no confirm within {}", show_duration(CONFIRM));
                            self.fail(&why);
                            return Err(trouble(None, why));
                        }
                    }
                }
            };
            return match confirmation {
                Ok(Confirmation::Ack(None)) => Ok(()),
                Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                    Err(NotPublished::Unroutable(returned.reply_text.to_string()))
                }
                Ok(Confirmation::Nack(None)) => Err(NotPublished::Refused(
                    "the broker did not take the message; a queue is full, or too few of its nodes are up".to_owned(),
                )),
                // Confirms are on from the start, so this is a channel that is none of ours.
                Ok(Confirmation::NotRequested) => Err(trouble(None, "no confirm".to_owned())),
                Err(error) => {
                    let trouble = Trouble::from(error).lacking("write to", DEFAULT_EXCHANGE);
                    self.fail(&trouble.text);
                    Err(NotPublished::Trouble(trouble))
                }
            };
        }
    }

    /// Sees that a message has somewhere to go. While the broker holds publishing back, it answers
    /// nothing on this connection, and silence means no trouble.
    async fn make_ready(
        &self,
        to: Destination<'_>,
        patience: Patience,
    ) -> Result<(), NotPublished> {
        loop {
            self.free(patience).await?;
            match self.prepare(to).await {
                Ok(()) => return Ok(()),
                Err(Trouble { code: None, .. }) if self.alarm.borrow().is_some() => {}
                Err(trouble) => return Err(NotPublished::Trouble(trouble)),
            }
        }
    }

    /// Waits until the broker does not hold publishing back.
    async fn free(&self, patience: Patience) -> Result<(), NotPublished> {
        let mut alarm = self.alarm.subscribe();
        let Some(why) = alarm.borrow_and_update().clone() else {
            return Ok(());
        };
        tokio::select! {
            // The sender is our own, so that this ends only when the alarm does.
            _ = alarm.wait_for(Option::is_none) => Ok(()),
            why = self.failed() => Err(trouble(None, why)),
            () = tokio::time::sleep(CONFIRM), if patience == Patience::Bounded => Err(held_back(&why)),
        }
    }

    async fn prepare(&self, to: Destination<'_>) -> Result<(), Trouble> {
        let Some(queue) = to.task_queue() else {
            return Ok(());
        };
        let known = self.known(queue);
        known.ensure(&self.link, to).await?;
        let news = known.news.load(Ordering::Relaxed);
        if known.told.load(Ordering::Relaxed) < news {
            let lock = delay::lock_name(queue);
            // Where nobody has the lock, nobody needs to be told. Where this is dropped, the next one tells.
            let _ = self.knock(&lock, message::ring()).await;
            known.told.fetch_max(news, Ordering::Relaxed);
        }
        known.age().await;
        Ok(())
    }

    /// Sees that there is a queue for the suspects of a task queue, which may be too young to be relied on.
    pub(super) async fn make_suspects(&self, queue: &QueueName) -> Result<(), Trouble> {
        let to = Destination::Suspects(queue);
        self.known(queue).ensure(&self.link, to).await
    }

    fn known(&self, queue: &QueueName) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(queue) {
            Some(known) => known.clone(),
            None => known.entry(queue.clone()).or_default().clone(),
        }
    }

    fn forget(&self, queue: &QueueName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(queue);
    }

    /// Whether a queue is there, asked by a message that is gone as soon as it has come. A declaration
    /// would be answered with an error, which the broker's log has too: once an answer.
    pub(super) async fn knocks_at(&self, name: &str) -> Result<bool, NotPublished> {
        match self.knock(name, message::knock()).await {
            Ok(()) => Ok(true),
            Err(NotPublished::Unroutable(_)) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// See [`topology::depth`].
    pub(super) async fn depth(&self, queue: &QueueName) -> Result<Option<Depth>, Trouble> {
        topology::depth(&self.link, queue).await
    }

    /// The connection, for questions that need channels of their own.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The channel, for what is tied to it.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Marks it as of no more use, and wakes everybody who waits on it.
    pub(super) fn fail(&self, why: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    /// Waits until it is of no more use.
    pub(super) async fn failed(&self) -> String {
        failed(&mut self.failure.subscribe()).await
    }

    /// The broker holds publishing back, and why; or not any more. Gives what was so before.
    pub(super) fn set_alarm(&self, alarm: Option<String>) -> Option<String> {
        self.alarm.send_replace(alarm)
    }

    /// Ends the connection in order.
    pub(super) async fn close(&self) {
        self.fail("the connection was closed");
        self.link.close().await;
    }
}

impl Default for Known {
    fn default() -> Self {
        Known {
            queue: OnceCell::new(),
            dead: OnceCell::new(),
            suspects: OnceCell::new(),
            levels: std::array::from_fn(|_| OnceCell::new()),
            news: AtomicU32::new(0),
            told: AtomicU32::new(0),
            safe_from: Mutex::default(),
        }
    }
}

impl Known {
    /// Sees that the queues are there by which a message gets to where it goes.
    async fn ensure(&self, link: &Link, to: Destination<'_>) -> Result<(), Trouble> {
        match to {
            Destination::Queue(queue) => self.ensure_queue(link, queue).await,
            Destination::Delay(queue, level) => {
                self.ensure_queue(link, queue).await?;
                self.ensure_levels(link, queue, level).await
            }
            Destination::Dead(queue) => {
                let name = topology::dead_name(queue);
                self.ensure_own(&self.dead, link, &name).await
            }
            Destination::Suspects(queue) => {
                let name = topology::suspects_name(queue);
                self.ensure_own(&self.suspects, link, &name).await
            }
            Destination::Reply(_) => Ok(()),
        }
    }

    async fn ensure_queue(&self, link: &Link, queue: &QueueName) -> Result<(), Trouble> {
        let ensure = async || {
            let was_made = topology::ensure_queue(link, queue.as_str()).await?;
            self.note(was_made);
            Ok(())
        };
        self.queue.get_or_try_init(ensure).await.copied()
    }

    async fn ensure_own(
        &self,
        cell: &OnceCell<()>,
        link: &Link,
        name: &str,
    ) -> Result<(), Trouble> {
        let ensure = async || {
            let was_made = topology::ensure_own_queue(link, name).await?;
            self.note(was_made);
            Ok(())
        };
        cell.get_or_try_init(ensure).await.copied()
    }

    /// From the lowest up, so that whoever looks for them knows the highest by the first gap.
    async fn ensure_levels(&self, link: &Link, queue: &QueueName, top: u32) -> Result<(), Trouble> {
        for (level, cell) in (0..=top).zip(&self.levels) {
            let is_news = !cell.initialized();
            let name = delay::level_name(queue, level);
            self.ensure_own(cell, link, &name).await?;
            self.news.fetch_add(u32::from(is_news), Ordering::Relaxed);
        }
        Ok(())
    }

    fn note(&self, was_made: bool) {
        if was_made {
            let mut safe_from = self
                .safe_from
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *safe_from = Some(Instant::now() + SAFE_AFTER);
        }
    }

    /// Waits until all that was made is old enough to be relied on.
    async fn age(&self) {
        let safe_from = *self
            .safe_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(safe_from) = safe_from {
            tokio::time::sleep_until(safe_from).await;
        }
    }
}

/// A new channel on which every message is confirmed.
async fn confirming(link: &Link) -> Result<Channel, Trouble> {
    let channel = link.channel().await?;
    answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// The queue that a message goes to, by the exchange without a name.
fn route(to: Destination<'_>) -> String {
    match to {
        Destination::Queue(queue) => queue.as_str().to_owned(),
        Destination::Dead(queue) => topology::dead_name(queue),
        Destination::Suspects(queue) => topology::suspects_name(queue),
        Destination::Delay(queue, level) => delay::level_name(queue, level),
        Destination::Reply(address) => address.to_owned(),
    }
}

async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => "the connection was closed".to_owned(),
    }
}

fn held_back(why: &str) -> NotPublished {
    trouble(None, format!("the broker holds publishing back: {why}"))
}

fn trouble(code: Option<u16>, text: String) -> NotPublished {
    NotPublished::Trouble(Trouble { code, text })
}

impl NotPublished {
    /// What happened, for a person.
    pub(super) fn text(&self) -> &str {
        match self {
            NotPublished::Unroutable(text) | NotPublished::Refused(text) => text,
            NotPublished::Trouble(trouble) => &trouble.text,
        }
    }
}
