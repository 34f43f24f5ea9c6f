//! The taking side: a consumer that claims ahead up to its prefetch, and the holds it hands out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::desk::{Answer, Desk, Kind, Place, Stray};
use super::slots::{Slots, Taken};
use super::store::{Claim, Claimed, Fate};
use crate::broker::{
    BrokerError, Consumer, Delivery, Hold, Message, Notice, NoticeSink, Record, ReplyTo,
    SettleError, Standing,
};
use crate::name::QueueName;
use crate::settlement::{Reply, Settlement};

/// How long a consumer that found nothing waits at most before it looks again. Whatever should wake
/// it does so at once; this is for bells that were not heard.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Takes messages from one queue of the file.
pub(super) struct SqliteConsumer {
    desk: Desk,
    queue: i64,
    name: QueueName,
    notices: NoticeSink,
    prefetch: usize,
    /// One is taken for each message that is claimed, or handed out and not on its way to be settled. What is
    /// on its way is settled no later than the next claim takes its place.
    slots: Slots,
    /// Claimed and not handed out.
    buffer: VecDeque<(Claimed, Taken)>,
    /// The claim under way.
    asked: Option<Answer<Placed>>,
    wake: watch::Receiver<u64>,
    /// The last claim found nothing: no need to look before this, or before the wake.
    idle_until: Option<Instant>,
    is_failing: bool,
    is_paused: bool,
    is_stopped: bool,
}

/// A claim, and slots for at least what it brings.
type Placed = (Claim, Option<Taken>);

impl SqliteConsumer {
    /// A consumer of the queue with this id and name, which says at once whether it takes from it.
    pub(super) fn new(
        desk: Desk,
        queue: i64,
        name: QueueName,
        is_paused: bool,
        prefetch: u16,
        notices: NoticeSink,
    ) -> Self {
        notices(if is_paused {
            Notice::Paused(name.clone())
        } else {
            Notice::Connected(name.clone())
        });
        let prefetch = usize::from(prefetch.max(1));
        SqliteConsumer {
            wake: desk.wake(),
            desk,
            queue,
            name,
            notices,
            prefetch,
            slots: Slots::new(prefetch),
            buffer: VecDeque::new(),
            asked: None,
            idle_until: None,
            is_failing: false,
            is_paused,
            is_stopped: false,
        }
    }

    /// Starts the next claim while there is still something to hand out, so that a worker need not
    /// wait for it.
    fn claim_ahead(&mut self) {
        let is_due = self.asked.is_none()
            && self.idle_until.is_none()
            && self.buffer.len() <= self.prefetch / 2;
        if is_due && self.slots.is_any_free() {
            let desk = self.desk.clone();
            if let Some(place) = desk.try_place() {
                self.claim(place);
            }
        }
    }

    fn claim(&mut self, place: Place<'_>) {
        // Whatever comes from here on makes the consumer look again.
        self.wake.borrow_and_update();
        let queue = self.queue;
        let slots = self.slots.clone();
        // For all the slots that are free when it is its turn: then it shares a transaction with what
        // freed them.
        let answer = place.ask(Kind::Take, unhanded, move |store| {
            let taken = slots.take_free();
            let limit = taken.as_ref().map_or(0, Taken::count);
            Ok((store.claim(queue, limit)?, taken))
        });
        self.asked = Some(answer);
    }

    /// One step towards a delivery: waits for whatever the next one hangs on. Cancel safe.
    async fn step(&mut self) {
        if let Some(answer) = &mut self.asked {
            let answer = answer.await;
            self.absorb(answer.unwrap_or_else(|_| Err(self.desk.closed())));
        } else if let Some(until) = self.idle_until {
            tokio::select! {
                _ = self.wake.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            self.idle_until = None;
        } else if !self.slots.is_any_free() {
            self.slots.freed().await;
        } else {
            let desk = self.desk.clone();
            match desk.place().await {
                Ok(place) => self.claim(place),
                // A closed broker has no more deliveries, as one that is down has none.
                Err(_) => std::future::pending().await,
            }
        }
    }

    fn absorb(&mut self, answer: Result<Placed, BrokerError>) {
        self.asked = None;
        match answer {
            Ok((claim, mut slots)) => {
                if claim.taken.is_empty() {
                    let next = claim.next_due.and_then(|due| u64::try_from(due).ok());
                    let next = next.map_or(LOOK_AGAIN, Duration::from_millis);
                    self.idle_until = Some(Instant::now() + next.min(LOOK_AGAIN));
                }
                for claimed in claim.taken {
                    let slot = slots
                        .as_mut()
                        .and_then(Taken::split_one)
                        .expect("a claim takes no more than it has slots for");
                    self.buffer.push_back((claimed, slot));
                }
                let was_failing = std::mem::take(&mut self.is_failing);
                let was_paused = std::mem::replace(&mut self.is_paused, claim.is_paused);
                match (was_failing, was_paused, claim.is_paused) {
                    (true, _, true) | (_, false, true) => {
                        (self.notices)(Notice::Paused(self.name.clone()));
                    }
                    (true, _, false) | (_, true, false) => {
                        (self.notices)(Notice::Connected(self.name.clone()));
                    }
                    (false, true, true) | (false, false, false) => {}
                }
            }
            Err(error) => {
                self.idle_until = Some(Instant::now() + LOOK_AGAIN);
                if !std::mem::replace(&mut self.is_failing, true) && self.desk.is_open() {
                    (self.notices)(Notice::Disconnected(
                        self.name.clone(),
                        format!("{error}; trying again every second"),
                    ));
                }
            }
        }
    }
}

#[async_trait]
impl Consumer for SqliteConsumer {
    async fn next(&mut self, into: &mut Vec<Delivery>, limit: usize) {
        if limit == 0 {
            return;
        }
        while !self.is_stopped {
            self.claim_ahead();
            if self.buffer.is_empty() {
                self.step().await;
                continue;
            }
            let count = limit.min(self.buffer.len());
            for (claimed, slot) in self.buffer.drain(..count) {
                let hold = SqliteHold::new(&self.desk, &claimed, Some(slot));
                into.push(Delivery {
                    message: claimed.message,
                    crashes: claimed.crashes,
                    standing: Standing::Ordinary,
                    hold: Box::new(hold),
                });
            }
            return;
        }
    }

    fn set_prefetch(&mut self, prefetch: u16) {
        let prefetch = usize::from(prefetch.max(1));
        self.slots.resize(self.prefetch, prefetch);
        self.prefetch = prefetch;
    }

    async fn stop(&mut self) {
        self.is_stopped = true;
        if let Some(answer) = &mut self.asked {
            let answer = answer.await;
            self.absorb(answer.unwrap_or_else(|_| Err(self.desk.closed())));
        }
        let ids: Vec<i64> = self.buffer.iter().map(|(claimed, _)| claimed.id).collect();
        if ids.is_empty() {
            return;
        }
        let returned = self
            .desk
            .ask(move |store| ids.iter().try_for_each(|id| store.give_back(*id, false)));
        if returned.await.is_ok() {
            self.buffer.clear();
        }
        // What could not be given back now goes the way of a dropped consumer's.
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        if let Some(mut answer) = self.asked.take() {
            // After this, an answer on its way is unwanted and goes back by itself.
            answer.close();
            if let Ok(Ok(placed)) = answer.try_recv() {
                self.desk.stray(unhanded(placed));
            }
        }
        let buffered = self.buffer.drain(..).map(|(claimed, _)| claimed);
        self.desk.stray(buffered.map(Stray::unhanded));
    }
}

/// What goes back of a claim that nobody waits for any more.
fn unhanded((claim, _): Placed) -> Vec<Stray> {
    strays(claim)
}

/// What goes back of a claim.
pub(super) fn strays(claim: Claim) -> Vec<Stray> {
    claim.taken.into_iter().map(Stray::unhanded).collect()
}

impl Stray {
    /// Nobody has begun with it, so nobody can have died of it.
    fn unhanded(claimed: Claimed) -> Stray {
        Stray {
            id: claimed.id,
            crashed: false,
        }
    }
}

/// A row in this process's name.
pub(super) struct SqliteHold {
    desk: Desk,
    id: i64,
    /// Tells this hold from a later one of the same process, which there is when another process took
    /// this one for dead: that counted a crash.
    crashes: u32,
    came_without_id: bool,
    is_settled: bool,
    /// None for a suspect, and for what is on its way to be settled.
    slot: Option<Taken>,
}

impl SqliteHold {
    /// A hold on what was claimed, and the slot that it takes from its consumer.
    pub(super) fn new(desk: &Desk, claimed: &Claimed, slot: Option<Taken>) -> Self {
        SqliteHold {
            desk: desk.clone(),
            id: claimed.id,
            crashes: claimed.crashes,
            came_without_id: claimed.message.id.is_none(),
            is_settled: false,
            slot,
        }
    }
}

impl Hold for SqliteHold {
    fn is_live(&self) -> bool {
        self.desk.is_open()
    }

    fn settle(
        self: Box<Self>,
        message: Message,
        settlement: Arc<Settlement>,
    ) -> BoxFuture<'static, Result<(), SettleError>> {
        // No more of the message is kept until the disk has it: there may be very many on their way.
        let made_up_id = message.id.filter(|_| self.came_without_id);
        self.tell(settlement, made_up_id, message.reply_to).boxed()
    }
}

impl SqliteHold {
    async fn tell(
        mut self: Box<Self>,
        settlement: Arc<Settlement>,
        made_up_id: Option<String>,
        reply_to: Option<ReplyTo>,
    ) -> Result<(), SettleError> {
        let Ok(place) = self.desk.place().await else {
            self.is_settled = true;
            return Err(SettleError::Lost);
        };
        let (id, crashes) = (self.id, self.crashes);
        let answer = place.ask(
            Kind::Settle,
            |_| Vec::new(),
            move |store| {
                let (fate, said) = decide(&settlement);
                let reply = match (&reply_to, said) {
                    (Some(reply_to), Said::ToAll(reply)) => Some((reply_to, reply)),
                    (Some(reply_to), Said::BeforeTheEnd(reply)) if reply_to.notify => {
                        Some((reply_to, reply))
                    }
                    (Some(_), Said::BeforeTheEnd(_) | Said::Nothing) | (None, _) => None,
                };
                store.settle(id, crashes, &fate, made_up_id.as_deref(), reply)
            },
        );
        // The claim that takes its place comes after it, at the earliest in the same transaction.
        self.slot = None;
        match answer.await {
            Ok(Ok(true)) => {
                self.is_settled = true;
                Ok(())
            }
            Ok(Ok(false)) | Err(_) => {
                self.is_settled = true;
                Err(SettleError::Lost)
            }
            Ok(Err(error)) => {
                self.is_settled = true;
                self.desk.stray([Stray { id, crashed: false }]);
                Err(SettleError::Failed(error.into()))
            }
        }
    }
}

impl Drop for SqliteHold {
    fn drop(&mut self) {
        if !self.is_settled {
            // Whoever had it went without a word: a panic, as a rule.
            self.desk.stray([Stray {
                id: self.id,
                crashed: true,
            }]);
        }
    }
}

/// Who hears what of a settlement.
enum Said<'a> {
    Nothing,
    /// To requesters that want to hear of more than the end.
    BeforeTheEnd(&'a Reply),
    ToAll(&'a Reply),
}

fn decide(settlement: &Settlement) -> (Fate<'_>, Said<'_>) {
    fn requeue(after: Duration, record: &Record) -> Fate<'_> {
        Fate::Requeue {
            after: i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            record,
        }
    }
    match settlement {
        Settlement::Done { reply } => (Fate::Delete, Said::ToAll(reply)),
        Settlement::Retry {
            after,
            record,
            reply,
        } => (requeue(*after, record), Said::BeforeTheEnd(reply)),
        Settlement::Release { after, record } => (requeue(*after, record), Said::Nothing),
        Settlement::Park {
            after,
            record,
            reply,
        } => {
            let said = reply.as_ref().map_or(Said::Nothing, Said::BeforeTheEnd);
            (requeue(*after, record), said)
        }
        Settlement::Dead { letter, reply } => (Fate::Bury(letter), Said::ToAll(reply)),
    }
}
