//! [`RabbitHold`]: what a settlement means on AMQP. First what it publishes is confirmed, then the
//! original goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::BasicProperties;
use tokio::sync::oneshot;

use super::SettlementMode;
use super::acks::{Ack, Acks, Entry, Verdict};
use super::delay::Stay;
use super::message;
use super::outlet::{Destination, NotPublished, Patience};
use super::pace::Pace;
use super::publisher::Publisher;
use super::{reply_address, topology};
use crate::broker::{Hold, Message, Notice, NoticeSink, Record, ReplyTo, SettleError};
use crate::name::QueueName;
use crate::settlement::{Reply, Settlement};

/// How often a settlement tries to publish before it gives the message back. With the waits between,
/// about half a minute: a message that goes back and forth must not spin.
const TRIES: u32 = 8;

/// How often a message may have come back to its queue and still be put back when it cannot be settled.
/// From version 4 on the broker drops what came back twenty times, without a dead letter; so the last
/// ten are left to connections that break.
const RETURNS: u32 = 10;

/// The most that a native retry waits before it goes back, whatever delay was asked for: the delay is the
/// business of the queue's own policy. Where there is none, a task that fails at once would come back
/// thousands of times a second.
const NATIVE_PAUSE: Duration = Duration::from_secs(1);

/// What RabbitMQ says when a part of it crashed.
const INTERNAL_ERROR: u16 = 541;

/// What the holds of one consumer share.
pub(super) struct Desk {
    pub(super) queue: QueueName,
    pub(super) publisher: Arc<Publisher>,
    pub(super) mode: SettlementMode,
    pub(super) notices: NoticeSink,
    /// How long the broker lets a delivery be unsettled, as far as we know.
    pub(super) consumer_timeout: Duration,
    /// The last suspect could not be put aside, and that was told.
    pub(super) is_keeping_suspects: AtomicBool,
}

/// A delivery on one consuming channel.
pub(super) struct RabbitHold {
    pub(super) desk: Arc<Desk>,
    pub(super) acks: Acks,
    pub(super) tag: u64,
    pub(super) original: BasicProperties,
}

impl Hold for RabbitHold {
    fn is_live(&self) -> bool {
        !self.acks.is_closed()
    }

    fn settle(
        self: Box<Self>,
        message: Message,
        settlement: Arc<Settlement>,
    ) -> BoxFuture<'static, Result<(), SettleError>> {
        match (&*settlement, &message.reply_to) {
            // Most are such, and there may be as many on their way as are prefetched: nothing is kept for them but
            // what the ack takes.
            (Settlement::Done { .. }, None) => {
                let RabbitHold { acks, tag, .. } = *self;
                async move {
                    if acks.is_closed() {
                        return Err(SettleError::Lost);
                    }
                    tell(&acks, tag, Verdict::Ack).await
                }
                .boxed()
            }
            _ => async move { self.publish_and_tell(&message, &settlement).await }.boxed(),
        }
    }
}

impl RabbitHold {
    async fn publish_and_tell(
        &self,
        message: &Message,
        settlement: &Settlement,
    ) -> Result<(), SettleError> {
        if !self.is_live() {
            return Err(SettleError::Lost);
        }
        match self.publish(message, settlement).await {
            Ok(verdict) => tell(&self.acks, self.tag, verdict).await,
            Err(why) => {
                tell(&self.acks, self.tag, Verdict::Requeue).await?;
                Err(SettleError::Failed(anyhow!(
                    "could not publish what the settlement asks for, so the message went back to \
                     queue `{}`: {why}",
                    self.desk.queue
                )))
            }
        }
    }

    /// Publishes what a settlement asks for, and says what the broker is to do with the original.
    async fn publish(&self, message: &Message, settlement: &Settlement) -> Result<Verdict, String> {
        let reply_to = message.reply_to.as_ref();
        match (settlement, self.desk.mode) {
            (Settlement::Done { reply }, _) => {
                self.reply(reply_to, reply).await?;
                Ok(Verdict::Ack)
            }
            (
                Settlement::Retry {
                    after,
                    record,
                    reply,
                },
                mode,
            ) => {
                self.reply(reply_to.filter(|address| address.notify), reply)
                    .await?;
                self.again(message, *after, record, mode).await
            }
            (Settlement::Release { after, record }, mode) => {
                self.again(message, *after, record, mode).await
            }
            (
                Settlement::Park {
                    after,
                    record,
                    reply,
                },
                mode,
            ) => {
                if let Some(reply) = reply {
                    self.reply(reply_to.filter(|address| address.notify), reply)
                        .await?;
                }
                self.again(message, *after, record, mode).await
            }
            (Settlement::Dead { letter, reply }, SettlementMode::Standard) => {
                let queue = &self.desk.queue;
                let properties = message::bury(&self.original, message, letter, queue)
                    .map_err(|error| format!("{error:#}"))?;
                self.send(Destination::Dead(queue), properties, &message.body)
                    .await?;
                self.reply(reply_to, reply).await?;
                Ok(Verdict::Ack)
            }
            (Settlement::Dead { reply, .. }, SettlementMode::Native) => {
                self.reply(reply_to, reply).await?;
                Ok(Verdict::Discard)
            }
        }
    }

    /// Has the message delivered again. Without a delay too it is a copy that goes, because the broker
    /// would count a requeue as a crash.
    async fn again(
        &self,
        message: &Message,
        after: Duration,
        record: &Record,
        mode: SettlementMode,
    ) -> Result<Verdict, String> {
        if mode == SettlementMode::Native {
            tokio::time::sleep(after.min(NATIVE_PAUSE)).await;
            return Ok(Verdict::Requeue);
        }
        let properties =
            message::copy(&self.original, message, record).map_err(|error| format!("{error:#}"))?;
        let queue = &self.desk.queue;
        let Some(stay) = Stay::after(after) else {
            let to = if record.on_trial {
                Destination::Suspects(queue)
            } else {
                Destination::Queue(queue)
            };
            // The worker is going; it has no time for more than one try.
            let sent = self
                .desk
                .publisher
                .publish(to, properties.clone(), &message.body, Patience::Bounded)
                .await;
            if record.on_trial {
                self.tell_of_suspects(&sent);
            }
            match sent {
                Ok(()) => return Ok(Verdict::Ack),
                Err(_) if self.may_return() => return Ok(Verdict::Requeue),
                Err(_) => {
                    self.send(to, properties, &message.body).await?;
                    return Ok(Verdict::Ack);
                }
            }
        };
        let properties = message::put_off(properties, stay);
        let to = Destination::Delay(queue, stay.level);
        self.send(to, properties, &message.body).await?;
        Ok(Verdict::Ack)
    }

    /// Says once that suspects cannot be put aside, until one can be.
    fn tell_of_suspects(&self, sent: &Result<(), NotPublished>) {
        let is_failing = sent.is_err();
        let was_failing = self
            .desk
            .is_keeping_suspects
            .swap(is_failing, Ordering::Relaxed);
        if let (Err(why), false) = (sent, was_failing) {
            let name = topology::suspects_name(&self.desk.queue);
            (self.desk.notices)(Notice::Warning(format!(
                "tasks that were there when workers died wait: queue `{name}` does not take them: {}; where that lasts, delete the queue, and it is made anew",
                why.text()
            )));
        }
    }

    async fn reply(&self, to: Option<&ReplyTo>, reply: &Reply) -> Result<(), String> {
        let Some(to) = to else {
            return Ok(());
        };
        if !reply_address::is_sound(&to.address) {
            self.give_up_reply(&to.address, "this is no address of the broker's");
            return Ok(());
        }
        let properties = message::write_reply(reply, to.correlation_id.as_deref())
            .map_err(|error| format!("{error:#}"))?;
        self.send(Destination::Reply(&to.address), properties, &reply.body)
            .await
    }

    /// Whether the broker can be given the message back without coming near to dropping it.
    fn may_return(&self) -> bool {
        message::crashes(&self.original, false) < RETURNS
    }

    /// Publishes, and tries again for as long as that makes sense.
    async fn send(
        &self,
        to: Destination<'_>,
        properties: BasicProperties,
        body: &Bytes,
    ) -> Result<(), String> {
        let mut pace = Pace::new();
        let mut last = String::new();
        for tries in 1.. {
            let publisher = &self.desk.publisher;
            let sent = match to {
                // The last try may have ended the connection of all the others.
                Destination::Reply(address) if tries > 1 && reply_address::is_direct(address) => {
                    publisher.publish_alone(to, properties.clone(), body).await
                }
                _ => {
                    let properties = properties.clone();
                    publisher
                        .publish(to, properties, body, Patience::WhileBlocked)
                        .await
                }
            };
            match (sent, to) {
                (Ok(()), _) => return Ok(()),
                (Err(NotPublished::Unroutable(_)), Destination::Reply(address)) => {
                    match self.is_gone(address).await {
                        Ok(false) => {
                            last = format!(
                                "queue `{address}` for the reply is not reached; is the node up that has it?"
                            );
                        }
                        Ok(true) => {
                            self.give_up_reply(address, "the requester is gone");
                            return Ok(());
                        }
                        Err(why) => last = why,
                    }
                }
                // A queue may be such a one for a moment, when its nodes die.
                (Err(NotPublished::Trouble(trouble)), Destination::Reply(address))
                    if tries > 1
                        && trouble.code == Some(INTERNAL_ERROR)
                        && reply_address::is_direct(address) =>
                {
                    self.give_up_reply(address, "the broker fails at this address");
                    return Ok(());
                }
                (Err(why), _) => why.text().clone_into(&mut last),
            }
            if !self.is_live() || (tries >= TRIES && self.may_return()) {
                break;
            }
            tokio::time::sleep(pace.wait()).await;
        }
        Err(last)
    }

    /// Whether there is no such queue, and not only none that is reached.
    async fn is_gone(&self, address: &str) -> Result<bool, String> {
        let outlet = self.desk.publisher.outlet().await?;
        match topology::is_known(outlet.link(), address).await {
            Ok(is_known) => Ok(!is_known),
            Err(trouble) => Err(trouble.text),
        }
    }

    fn give_up_reply(&self, address: &str, why: &str) {
        (self.desk.notices)(Notice::Warning(format!(
            "a reply found nobody at `{address}`; {why}"
        )));
    }
}

/// Tells the broker, and returns when it has heard.
async fn tell(acks: &Acks, tag: u64, verdict: Verdict) -> Result<(), SettleError> {
    let (arrived, told) = oneshot::channel();
    let ack = Ack {
        tag,
        verdict,
        arrived,
    };
    let is_told = acks.send(Entry::Ack(ack)).is_ok() && told.await.is_ok();
    match (is_told, verdict) {
        (true, _) => Ok(()),
        (false, Verdict::Ack) => Err(SettleError::Unacked),
        // Whatever arrived of these, the message is the queue's again, or its policy's.
        (false, Verdict::Requeue | Verdict::Discard) => Err(SettleError::Lost),
    }
}
