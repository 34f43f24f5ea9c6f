//! [`RabbitDeadLetters`]: a pass over `QUEUE.dead` on a connection of its own.
//!
//! AMQP shows a message only by handing it over, and one that is given back comes next again. So a pass
//! keeps every letter that it reads unacked until its end, as a number alone, and then gives them back;
//! RabbitMQ 3.10 puts them into no particular order then. Letters are taken by short subscriptions,
//! each for no more than fit into memory; `basic.get` would cost a round trip a letter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::iter;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, message::Delivery as Delivered};
use tokio::time::timeout;

use super::WINDOW;
use super::connection::{Connector, Link, Trouble, answer};
use super::lock::try_lock;
use super::message;
use super::outlet::{Destination, Patience};
use super::pace::Pace;
use super::publisher::Publisher;
use super::topology;
use crate::broker::{BrokerError, Buried, DeadLetters, Kept, Record};
use crate::name::QueueName;

/// How long to wait for another pass to end.
const TURN: Duration = Duration::from_secs(60);

/// How long a queue that has nothing more to give may take for what it has given.
const SILENCE: Duration = Duration::from_millis(500);

/// How long it may take while it has more.
const ANSWER: Duration = Duration::from_secs(20);

/// The most that one subscription brings, in letters and, by the largest so far, in bytes.
const MOST: usize = 500;
const PAGE_BYTES: usize = 16 << 20;

/// How many acks a channel may send before it waits for the queue: half of what the broker lets pass.
const COMMANDS: usize = 16;

/// The first subscription's letters, before anything is known of their size.
const FIRST: usize = 16;

/// After how many times that a letter was handed over it is written anew, where the queue may have a
/// limit to that: 20 is the default from RabbitMQ 4 on, past which the broker drops a message.
const LOOKS: u32 = 10;

const ON_ANOTHER_PAGE: &str = "it is on a page that was left";

/// A pass over one queue's dead letters.
pub(super) struct RabbitDeadLetters {
    queue: QueueName,
    publisher: Arc<Publisher>,
    link: Link,
    channel: Channel,
    /// How many of the letters that were there at the start have not been read, once that is known.
    left: Option<usize>,
    /// How many the next subscription may bring.
    room: usize,
    /// The tags of the letters that were read and not settled.
    held: BTreeSet<u64>,
    /// Letters that a [`RabbitDeadLetters::flush`] brought before their page.
    early: Vec<Delivered>,
    page: HashMap<u64, Original>,
    /// A letter may have come after its subscription was over: an ack of all up to a tag would take it too.
    may_stray: bool,
    /// The queue never drops a letter for having been looked at too often.
    is_patient: bool,
}

/// What a settlement needs of a letter beside what the caller has.
struct Original {
    properties: BasicProperties,
    body: Bytes,
}

impl RabbitDeadLetters {
    /// Connects, and waits for its turn.
    pub(super) async fn open(
        connector: &Connector,
        publisher: Arc<Publisher>,
        queue: &QueueName,
    ) -> Result<Self, BrokerError> {
        let (link, _) = connector.open("dead letters").await?;
        take_turn(&link, queue).await?;
        let opened = async {
            let count = topology::count(&link, &topology::dead_name(queue)).await?;
            let is_patient = match count {
                None => true,
                Some(_) => topology::is_patient(&link, queue).await?,
            };
            let channel = link.channel().await?;
            Ok((channel, count, is_patient))
        };
        let (channel, count, is_patient) =
            opened.await.map_err(|trouble| looking(queue, trouble))?;
        Ok(RabbitDeadLetters {
            queue: queue.clone(),
            publisher,
            link,
            channel,
            left: count.is_none().then_some(0),
            room: FIRST,
            held: BTreeSet::new(),
            early: Vec::new(),
            page: HashMap::new(),
            may_stray: false,
            is_patient,
        })
    }

    /// Takes the next letters of the queue, as many as `want` if there are so many.
    async fn take(&mut self, want: u16) -> Result<Vec<Delivered>, Trouble> {
        let name = topology::dead_name(&self.queue);
        answer(self.channel.basic_qos(want, BasicQosOptions::default())).await?;
        let subscribing = self.channel.basic_consume(
            name.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut stream = answer(subscribing).await?;
        // Asked only now: the subscription stands in the queue's log behind what others gave back.
        let waiting = self.waiting(&name).await?;
        let patience = if waiting > 0 { ANSWER } else { SILENCE };
        let mut taken = Vec::with_capacity(want.into());
        while taken.len() < want.into() {
            match timeout(patience, stream.next()).await {
                Ok(Some(Ok(letter))) => {
                    self.held.insert(letter.delivery_tag);
                    taken.push(letter);
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => {
                    return Err(Trouble {
                        code: None,
                        text: "the broker ended the subscription; was the queue deleted?".into(),
                    });
                }
                // All that was there is here; nothing says so but the silence.
                Err(_) if waiting == 0 => {
                    self.may_stray = true;
                    break;
                }
                Err(_) => {
                    return Err(Trouble {
                        code: None,
                        text: "the queue has more, but the broker sends nothing".into(),
                    });
                }
            }
        }
        let cancel = BasicCancelOptions::default();
        answer(self.channel.basic_cancel(stream.tag(), cancel)).await?;
        let left = self
            .left
            .map_or(waiting, |left| left.saturating_sub(taken.len()));
        self.left = Some(left.min(waiting));
        if let Some(largest) = taken.iter().map(|letter| letter.data.len()).max() {
            self.room = (PAGE_BYTES / largest.max(1)).clamp(1, MOST);
        }
        Ok(taken)
    }

    /// How many letters are ready, while a subscription of ours stands: a queue that has no consumer either has
    /// not been counted, or not heard of it yet.
    async fn waiting(&self, name: &str) -> Result<usize, Trouble> {
        let channel = self.link.channel().await?;
        let began = Instant::now();
        loop {
            let Some(found) = topology::look(&channel, name).await? else {
                return Ok(0);
            };
            if found.consumer_count() > 0 {
                return Ok(usize::try_from(found.message_count()).unwrap_or(usize::MAX));
            }
            if began.elapsed() >= ANSWER {
                return Err(Trouble {
                    code: None,
                    text: "the broker does not count what the queue has".into(),
                });
            }
        }
    }

    /// Leaves the page. What was handed over so often that the broker might drop it is written anew.
    async fn leave_page(&mut self) -> Result<(), BrokerError> {
        let page = std::mem::take(&mut self.page);
        if self.is_patient {
            return Ok(());
        }
        let mut worn: Vec<_> = page
            .into_iter()
            .filter(|(tag, original)| {
                self.held.contains(tag) && message::crashes(&original.properties, false) >= LOOKS
            })
            .collect();
        worn.sort_unstable_by_key(|(tag, _)| *tag);
        for (tag, original) in worn {
            let properties = message::renew(&original.properties).map_err(BrokerError::Refused)?;
            let to = Destination::Dead(&self.queue);
            self.publisher
                .publish(to, properties, &original.body, Patience::Bounded)
                .await
                .map_err(|why| {
                    BrokerError::Unavailable(anyhow!(
                        "cannot write a dead letter of queue `{}` anew: {}",
                        self.queue,
                        why.text()
                    ))
                })?;
            let acked = self.ack(vec![tag]).await;
            acked.map_err(|trouble| looking(&self.queue, trouble))?;
        }
        Ok(())
    }

    /// Publishes a letter to its queue. Gives its tag, with why that failed if it did.
    async fn publish(&self, letter: &Buried) -> Result<(), String> {
        let Some(original) = self.page.get(&letter.place) else {
            return Err(ON_ANOTHER_PAGE.to_owned());
        };
        let properties = message::copy(&original.properties, &letter.message, &Record::default())
            .map_err(|error| format!("{error:#}"))?;
        let to = Destination::Queue(&self.queue);
        self.publisher
            .publish(to, properties, &letter.message.body, Patience::Bounded)
            .await
            .map_err(|why| why.text().to_owned())
    }

    /// Acks letters, and returns when the queue has heard it.
    async fn ack(&mut self, mut tags: Vec<u64>) -> Result<(), Trouble> {
        tags.sort_unstable();
        let Some(last) = tags.last().copied() else {
            return Ok(());
        };
        if !self.may_stray && self.held.range(..=last).eq(tags.iter()) {
            let options = BasicAckOptions { multiple: true };
            answer(self.channel.basic_ack(last, options)).await?;
        } else {
            for some in tags.chunks(COMMANDS) {
                for tag in some {
                    answer(self.channel.basic_ack(*tag, BasicAckOptions::default())).await?;
                }
                self.flush().await?;
            }
        }
        for tag in &tags {
            self.held.remove(tag);
            self.page.remove(tag);
        }
        self.flush().await
    }

    /// Returns when the queue has done all that it was told on this channel.
    ///
    /// A channel that has told a quorum queue more than it has done keeps the rest to itself, and
    /// forgets that when it is closed. What comes with an answer out of the queue's log is a letter.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let name = topology::dead_name(&self.queue);
        let asking = self
            .channel
            .basic_get(name.as_str().into(), BasicGetOptions::default());
        if let Some(early) = answer(asking).await? {
            self.held.insert(early.delivery.delivery_tag);
            self.early.push(early.delivery);
        }
        Ok(())
    }

    /// Gives back what is held.
    async fn give_back(&mut self) -> Result<(), Trouble> {
        let Some(last) = self.held.last().copied() else {
            return Ok(());
        };
        let options = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        answer(self.channel.basic_nack(last, options)).await
    }
}

#[async_trait]
impl DeadLetters for RabbitDeadLetters {
    async fn next(&mut self, limit: usize) -> Result<Vec<Buried>, BrokerError> {
        self.leave_page().await?;
        // What came early once all were read is new here, or was written anew.
        let want = self.left.unwrap_or(MOST).min(limit).min(self.room);
        if want == 0 {
            return Ok(Vec::new());
        }
        let early = self.early.len().min(want);
        let mut taken: Vec<_> = self.early.drain(..early).collect();
        self.left = self.left.map(|left| left - early);
        if early < want {
            let more = u16::try_from(want - early).unwrap_or(u16::MAX);
            let more = self.take(more).await;
            taken.extend(more.map_err(|trouble| looking(&self.queue, trouble))?);
        }
        Ok(taken
            .into_iter()
            .map(|delivered| {
                let place = delivered.delivery_tag;
                let properties = delivered.properties;
                let message = message::read(&properties, delivered.data);
                let cause = message::cause(&properties);
                let body = message.body.clone();
                self.page.insert(place, Original { properties, body });
                Buried {
                    place,
                    message,
                    cause,
                }
            })
            .collect())
    }

    async fn retry(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError> {
        let this = &*self;
        let published: Vec<_> = iter(letters)
            .map(|letter| async move {
                let sent = this.publish(&letter).await;
                (letter, sent)
            })
            .buffered(WINDOW)
            .collect()
            .await;
        let (mut safe, mut kept) = (Vec::new(), Vec::new());
        for (letter, sent) in published {
            match sent {
                Ok(()) => safe.push(letter.place),
                Err(why) => kept.push(Kept {
                    id: letter.message.id,
                    why,
                }),
            }
        }
        let acked = self.ack(safe).await;
        acked.map_err(|trouble| looking(&self.queue, trouble))?;
        Ok(kept)
    }

    async fn discard(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError> {
        let (here, left): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .partition(|letter| self.page.contains_key(&letter.place));
        let acked = self
            .ack(here.iter().map(|letter| letter.place).collect())
            .await;
        acked.map_err(|trouble| looking(&self.queue, trouble))?;
        let kept = left.into_iter().map(|letter| Kept {
            id: letter.message.id,
            why: ON_ANOTHER_PAGE.to_owned(),
        });
        Ok(kept.collect())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BrokerError> {
        self.leave_page().await?;
        let given_back = self.give_back().await;
        given_back.map_err(|trouble| looking(&self.queue, trouble))?;
        // The broker answers once it has done all that came before on the channel.
        let closed = answer(self.channel.close(200, "goodbye".into())).await;
        self.link.close().await;
        closed.map_err(|trouble| looking(&self.queue, trouble))
    }
}

/// Waits until no other pass looks at these dead letters, and keeps others from it for as long as the
/// connection lives: two that held some each would both see only a part.
async fn take_turn(link: &Link, queue: &QueueName) -> Result<(), BrokerError> {
    let name = format!("{}.look", topology::dead_name(queue));
    let mut pace = Pace::new();
    let began = Instant::now();
    loop {
        match try_lock(link, &name).await {
            Ok(true) => return Ok(()),
            Ok(false) if began.elapsed() < TURN => tokio::time::sleep(pace.wait()).await,
            Ok(false) => {
                return Err(BrokerError::Unavailable(anyhow!(
                    "another command has been at the dead letters of queue `{queue}` for long; try again when it has ended"
                )));
            }
            Err(trouble) => return Err(looking(queue, trouble)),
        }
    }
}

fn looking(queue: &QueueName, trouble: Trouble) -> BrokerError {
    trouble.while_doing(&format!(
        "cannot go through the dead letters of queue `{queue}`; none is lost"
    ))
}
