//! [`Outlet`]: a channel that publishes, each message confirmed, and sees that what it publishes has
//! somewhere to go. Many publish at once; nobody waits for another's confirm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::{BasicProperties, Channel};
use tokio::sync::watch;

use super::confirming::{Confirmed, ConfirmingChannel, Outgoing};
use super::connection::{Link, Trouble};
use super::known::Known;
use super::{delay, message, reply_address, topology};
use crate::broker::Depth;
use crate::name::QueueName;
use crate::units::show_duration;

/// How long a confirm may take. A quorum queue that elects a leader needs some seconds.
const CONFIRM: Duration = Duration::from_secs(30);

/// How often a message is published to a queue that somebody deletes.
const TRIES: u32 = 3;

/// What permissions call the exchange without a name.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// A connection with a channel that publishes. Once something went wrong on it, it is of no more use.
pub(super) struct Outlet {
    link: Link,
    channel: ConfirmingChannel,
    failure: watch::Sender<Option<String>>,
    alarm: watch::Sender<Option<String>>,
    known: Mutex<HashMap<QueueName, Arc<Known>>>,
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
            channel: ConfirmingChannel::open(&link).await?,
            link,
            failure: watch::Sender::new(None),
            alarm: watch::Sender::new(None),
            known: Mutex::default(),
        })
    }

    /// Publishes a message and returns when it is confirmed. Makes what is missing of its queues. Whoever
    /// drops this leaves the message under way.
    pub(super) async fn publish(
        &self,
        to: Destination<'_>,
        properties: BasicProperties,
        body: &Bytes,
        patience: Patience,
    ) -> Result<(), NotPublished> {
        let route = route(to);
        let message = Outgoing {
            // By its documentation the broker returns what goes to a requester's own address, having told it.
            mandatory: !reply_address::is_direct(&route),
            route,
            properties,
            body: body.clone(),
        };
        let mut tries = 1;
        loop {
            let seen = self.make_ready(to, patience).await?;
            let sent = self.send(message.clone(), patience).await;
            match (&sent, seen) {
                (Err(NotPublished::Unroutable(_)), Some((queue, seen))) if tries < TRIES => {
                    tries += 1;
                    self.forget(queue, &seen);
                }
                _ => return sent,
            }
        }
    }

    /// Publishes what only asks whether there is such a queue.
    async fn knock(&self, route: &str, properties: BasicProperties) -> Result<(), NotPublished> {
        let message = Outgoing {
            route: route.to_owned(),
            properties,
            body: Bytes::new(),
            mandatory: true,
        };
        self.send(message, Patience::Bounded).await
    }

    async fn send(&self, message: Outgoing, patience: Patience) -> Result<(), NotPublished> {
        let confirmed = self.channel.publish(message);
        tokio::pin!(confirmed);
        let mut failure = self.failure.subscribe();
        loop {
            let confirmed = tokio::select! {
                confirmed = &mut confirmed => confirmed,
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
            return match confirmed {
                Ok(Confirmed::Taken) => Ok(()),
                Ok(Confirmed::Returned(why)) => Err(NotPublished::Unroutable(why)),
                Ok(Confirmed::Refused) => Err(NotPublished::Refused(
                    "the broker did not take the message; a queue is full, or too few of its nodes are up".to_owned(),
                )),
                Err(trouble) => {
                    let trouble = trouble.lacking("write to", DEFAULT_EXCHANGE);
                    self.fail(&trouble.text);
                    Err(NotPublished::Trouble(trouble))
                }
            };
        }
    }

    /// Sees that a message has somewhere to go, and says by what. While the broker holds publishing back, it
    /// answers nothing on this connection, and silence means no trouble.
    async fn make_ready<'a>(
        &self,
        to: Destination<'a>,
        patience: Patience,
    ) -> Result<Option<(&'a QueueName, Arc<Known>)>, NotPublished> {
        loop {
            self.free(patience).await?;
            let Some(queue) = to.task_queue() else {
                return Ok(None);
            };
            let known = self.known(queue);
            match self.prepare(to, queue, &known).await {
                Ok(()) => return Ok(Some((queue, known))),
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

    async fn prepare(
        &self,
        to: Destination<'_>,
        queue: &QueueName,
        known: &Known,
    ) -> Result<(), Trouble> {
        known.ensure(&self.link, to).await?;
        if let Some(news) = known.news() {
            let lock = delay::lock_name(queue);
            // Where nobody has the lock, nobody needs to be told. Where this is dropped, the next one tells.
            let _ = self.knock(&lock, message::ring()).await;
            known.told(news);
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

    /// Has it looked for anew, unless somebody else has seen to that.
    fn forget(&self, queue: &QueueName, seen: &Arc<Known>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .get(queue)
            .is_some_and(|known| Arc::ptr_eq(known, seen))
        {
            known.remove(queue);
        }
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
        self.channel.channel()
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
