//! [`Line`]: one subscription on a channel of its own, and the [`Ledger`] that its settlements go to.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer as Stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::acks::{self, Ack, Acks, Entry, Halt, Verdict, Written};
use super::connection::{Link, Trouble, answer};

/// A subscription. Each has its own channel: one that consumed from a queue which was deleted and made
/// again is of no use for the new one, because 3.10.8 keeps in it what it knew of the old one.
pub(super) struct Line {
    channel: Channel,
    pub(super) prefetch: u16,
    opened: Instant,
    stream: Stream,
    pub(super) acks: Acks,
    /// The tag of what came last, which is how many came.
    came: u64,
}

/// Keeps what is settled on a line from being written, until it is dropped.
pub(super) struct Halted {
    /// Of how many deliveries the broker knows what became of them.
    written: u64,
    /// When the broker was last told that it may send more.
    pub(super) since: Instant,
    _end: oneshot::Sender<()>,
}

/// What is settled on a line, and the channel to write it to.
pub(super) struct Ledger {
    channel: Channel,
    prefetch: u16,
    settled: mpsc::UnboundedReceiver<Entry>,
}

/// A line on which all is settled.
///
/// A channel that has told a quorum queue more than the queue has done keeps the rest to itself, and forgets that
/// when it is closed: then what was acked is delivered again.
pub(super) struct Settled {
    pub(super) channel: Channel,
    written: Written,
}

/// How much a channel tells a queue before that has done any of it: RabbitMQ's `quorum_commands_soft_limit`.
const SOFT_LIMIT: usize = 32;

/// How long a queue may take to do what it was told, where nobody asks it.
const DONE: Duration = Duration::from_secs(10);

impl Line {
    /// Subscribes to a queue. Nothing is acked until somebody keeps the ledger.
    pub(super) async fn open(
        link: &Link,
        queue: &str,
        prefetch: u16,
    ) -> Result<(Line, Ledger), Trouble> {
        let channel = link.channel().await?;
        answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let consuming = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = answer(consuming)
            .await
            .map_err(|trouble| trouble.lacking("read", queue))?;
        let (acks, settled) = mpsc::unbounded_channel();
        let ledger = Ledger {
            channel: channel.clone(),
            prefetch,
            settled,
        };
        let line = Line {
            channel,
            prefetch,
            opened: Instant::now(),
            stream,
            acks,
            came: 0,
        };
        Ok((line, ledger))
    }

    /// Waits for the next delivery. None: the subscription has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        let next = self.stream.next().await;
        if let Some(Ok(delivery)) = &next {
            self.came = delivery.delivery_tag;
        }
        next
    }

    /// Has what is settled wait. None: the channel is gone.
    pub(super) async fn halt(&self) -> Option<Halted> {
        let (written, told) = oneshot::channel();
        let (keep, end) = oneshot::channel();
        self.acks.send(Entry::Halt(Halt { written, end })).ok()?;
        let Written { count, last, .. } = told.await.ok()?;
        Some(Halted {
            written: count,
            since: last.unwrap_or(self.opened),
            _end: keep,
        })
    }

    /// Whether all has come that the broker may send.
    pub(super) fn is_full(&self, halted: &Halted) -> bool {
        self.came.saturating_sub(halted.written) >= self.prefetch.into()
    }

    /// Ends the subscription. What the broker had sent by then still comes, and then the stream ends.
    ///
    /// The answer comes behind that, however long the broker takes to send it: whoever waits looks at what comes,
    /// and judges by that whether the broker still does anything.
    pub(super) fn cancel(&self) -> impl Future<Output = Result<(), Trouble>> + use<> {
        let (channel, tag) = (self.channel.clone(), self.stream.tag());
        async move {
            let options = BasicCancelOptions::default();
            channel.basic_cancel(tag, options).await.map_err(Into::into)
        }
    }

    /// Settles a delivery, and does not wait for the broker to hear it.
    pub(super) fn settle(&self, tag: u64, verdict: Verdict) {
        let (arrived, _) = oneshot::channel();
        let ack = Ack {
            tag,
            verdict,
            arrived,
        };
        // With the ledger's end the channel is gone, and what came by it is delivered again.
        let _ = self.acks.send(Entry::Ack(ack));
    }

    /// Whether nothing that came by it waits for its settlement.
    pub(super) fn is_idle(&self) -> bool {
        // Each hold has one, and the line.
        self.acks.strong_count() == 1
    }
}

/// Writes what is settled on every line, until no more lines come and all that came by them is settled. Gives
/// those whose channels are still open.
///
/// # Errors
/// When a channel can take no more; what was not written will be delivered again.
pub(super) async fn keep(
    mut ledgers: mpsc::UnboundedReceiver<Ledger>,
) -> Result<Vec<Settled>, Trouble> {
    let (mut kept, mut closing) = (FuturesUnordered::new(), FuturesUnordered::new());
    let (over, is_over) = watch::channel(false);
    while !(*over.borrow() && kept.is_empty()) {
        tokio::select! {
            ledger = ledgers.recv(), if !*over.borrow() => match ledger {
                Some(ledger) => kept.push(ledger.write()),
                None => {
                    over.send_replace(true);
                }
            },
            Some(settled) = kept.next() => closing.push(settled?.close_later(is_over.clone())),
            Some(_) = closing.next() => {}
        }
    }
    Ok(closing.filter_map(async |open| open).collect().await)
}

impl Settled {
    /// Closes the channel when its queue has done all that was written, unless it is over before.
    async fn close_later(self, mut is_over: watch::Receiver<bool>) -> Option<Settled> {
        if let Some(last) = self.written.last {
            tokio::select! {
                () = tokio::time::sleep_until(last + DONE) => {}
                _ = is_over.wait_for(|is_over| *is_over) => return Some(self),
            }
        }
        self.close().await;
        None
    }

    /// Closes the channel. What its queue has not done by then is forgotten.
    pub(super) async fn close(self) {
        // Nothing more is expected of it, whatever the answer.
        let _ = answer(self.channel.close(200, "done".into())).await;
    }

    /// Whether the queue may not have done all that was written.
    pub(super) fn is_unsure(&self) -> bool {
        self.written.frames > SOFT_LIMIT
    }

    /// Waits until the queue has done all that was written. What it answers out of its log is a message, which
    /// is to be settled.
    ///
    /// # Errors
    /// When the channel breaks, or is refused.
    pub(super) async fn ask(&self, queue: &str) -> Result<Option<Delivery>, Trouble> {
        let options = BasicGetOptions::default();
        let got = answer(self.channel.basic_get(queue.into(), options)).await?;
        Ok(got.map(|got| got.delivery))
    }
}

impl Ledger {
    /// Writes what is settled on one line, until all that came by it is, and ends its channel when the queue has
    /// done all of it. A message that tells so goes back.
    pub(super) async fn keep(self, queue: &str) -> Result<(), Trouble> {
        let settled = self.write().await?;
        if settled.is_unsure()
            && let Some(got) = settled.ask(queue).await?
        {
            let options = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            answer(settled.channel.basic_nack(got.delivery_tag, options)).await?;
        }
        settled.close().await;
        Ok(())
    }

    /// Writes what is settled on one line, until all that came by it is.
    async fn write(mut self) -> Result<Settled, Trouble> {
        let written = acks::write(&self.channel, self.prefetch, &mut self.settled).await?;
        Ok(Settled {
            channel: self.channel,
            written,
        })
    }
}
