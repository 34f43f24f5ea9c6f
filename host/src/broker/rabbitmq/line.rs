//! [`Line`]: one subscription on a channel of its own, and the [`Ledger`] that its settlements go to.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer as Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::acks::{self, Ack, Acks, Entry, Halt, Verdict};
use super::connection::{Link, Trouble, answer};

/// A subscription. Each has its own channel: one that consumed from a queue which was deleted and made
/// again is of no use for the new one, because 3.10.8 keeps in it what it knew of the old one.
pub(super) struct Line {
    channel: Channel,
    pub(super) prefetch: u16,
    stream: Stream,
    pub(super) acks: Acks,
    /// The tag of what came last, which is how many came.
    came: u64,
}

/// Keeps what is settled on a line from being written, until it is dropped.
pub(super) struct Halted {
    /// Of how many deliveries the broker knows what became of them.
    written: u64,
    _end: oneshot::Sender<()>,
}

/// What is settled on a line, and the channel to write it to.
pub(super) struct Ledger {
    channel: Channel,
    prefetch: u16,
    settled: mpsc::UnboundedReceiver<Entry>,
}

/// How long a queue may take to do what it was told. A channel that is closed before forgets what it has
/// not passed on yet.
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
            stream,
            acks,
            came: 0,
        };
        Ok((line, ledger))
    }

    /// Waits for the next delivery. None: the subscription has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<lapin::Result<lapin::message::Delivery>> {
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
        Some(Halted {
            written: told.await.ok()?,
            _end: keep,
        })
    }

    /// Whether all has come that the broker may send.
    pub(super) fn is_full(&self, halted: &Halted) -> bool {
        self.came.saturating_sub(halted.written) >= self.prefetch.into()
    }

    /// Ends the subscription. What the broker had sent by then still comes, and then the stream ends.
    pub(super) async fn cancel(&self) -> Result<(), Trouble> {
        let cancelled = self
            .channel
            .basic_cancel(self.stream.tag(), BasicCancelOptions::default());
        answer(cancelled).await
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

/// Writes what is settled on every line, until no more lines come and all that came by them is settled.
///
/// # Errors
/// When a channel can take no more; what was not written will be delivered again.
pub(super) async fn keep(mut ledgers: mpsc::UnboundedReceiver<Ledger>) -> Result<(), Trouble> {
    let (mut kept, mut closing) = (FuturesUnordered::new(), FuturesUnordered::new());
    let mut is_over = false;
    while !(is_over && kept.is_empty()) {
        tokio::select! {
            ledger = ledgers.recv(), if !is_over => match ledger {
                Some(ledger) => kept.push(ledger.write()),
                None => is_over = true,
            },
            Some(written) = kept.next() => {
                let (channel, last) = written?;
                closing.push(close_later(channel, last));
            }
            Some(()) = closing.next() => {}
        }
    }
    Ok(())
}

/// Closes a channel on which all is settled, when its queue has done that too.
async fn close_later(channel: Channel, last: Option<Instant>) {
    if let Some(last) = last {
        tokio::time::sleep_until(last + DONE).await;
    }
    close(channel).await;
}

async fn close(channel: Channel) {
    // Nothing more is expected of it, whatever the answer.
    let _ = answer(channel.close(200, "done".into())).await;
}

impl Ledger {
    /// The same as [`Ledger::keep`], and the channel ends only when its queue has done all that was written.
    ///
    /// A channel that has told a quorum queue more than it has done keeps the rest to itself, and forgets
    /// that when it is closed. What is answered out of the queue's log is a message, which goes back.
    pub(super) async fn keep_to_the_end(mut self, queue: &str) -> Result<(), Trouble> {
        acks::write(&self.channel, self.prefetch, &mut self.settled).await?;
        let asking = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default());
        if let Some(got) = answer(asking).await? {
            let options = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            answer(self.channel.basic_nack(got.delivery.delivery_tag, options)).await?;
        }
        close(self.channel).await;
        Ok(())
    }

    /// Writes what is settled on one line, until all that came by it is, and ends its channel.
    pub(super) async fn keep(self) -> Result<(), Trouble> {
        let (channel, _) = self.write().await?;
        close(channel).await;
        Ok(())
    }

    /// Writes what is settled on one line, until all that came by it is. Gives the channel, and when it last
    /// wrote to it.
    async fn write(mut self) -> Result<(Channel, Option<Instant>), Trouble> {
        let last = acks::write(&self.channel, self.prefetch, &mut self.settled).await?;
        Ok((self.channel, last))
    }
}
