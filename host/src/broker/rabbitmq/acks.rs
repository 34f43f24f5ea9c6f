//! Acks: one loop a consuming channel writes what is settled, as few frames as there can be.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicQosOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connection::{Trouble, answer, answer_within};

/// How long the broker may take to have heard of acks. To give the connection up has everything that is held
/// delivered again and counted as a crash, so a broker that is merely busy is waited for; one that is gone
/// misses its heartbeats before that. Busy it can be for long: 4.0.5 takes two seconds to write out a message whose
/// headers are nested as deep as fits, and hears nothing on the channel while it writes many of them.
const HEARD: Duration = Duration::from_secs(600);

/// The most that is acked in one go.
const BATCH: usize = 1024;

/// What the broker is to do with the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Forget it.
    Ack,
    /// Deliver it again.
    Requeue,
    /// Do with it as the queue's own policy says: dead-letter it or forget it.
    Discard,
}

/// A verdict on one delivery, by its tag on this channel.
pub(super) struct Ack {
    pub(super) tag: u64,
    pub(super) verdict: Verdict,
    /// Told once the broker has the verdict; dropped untold when the channel is gone, and then the broker
    /// may have it or not.
    pub(super) arrived: oneshot::Sender<()>,
}

/// Has the verdicts of a channel wait, and so keeps the broker from sending more than it has room for.
pub(super) struct Halt {
    /// Told of all verdicts that came before this.
    pub(super) written: oneshot::Sender<Written>,
    /// It lasts until the other end of this is dropped.
    pub(super) end: oneshot::Receiver<()>,
}

/// What was written on a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// How many deliveries have had their verdicts.
    pub(super) count: u64,
    /// In how many acks and nacks.
    pub(super) frames: usize,
    /// When the last of them was heard. None: there was none.
    pub(super) last: Option<Instant>,
}

/// What is to be written, or not.
pub(super) enum Entry {
    Ack(Ack),
    Halt(Halt),
}

/// Where the verdicts of one channel go. It is closed when the channel is gone.
pub(super) type Acks = mpsc::UnboundedSender<Entry>;

/// Writes verdicts until every sender is gone, on a channel with this prefetch. Returns what it wrote.
///
/// # Errors
/// When the channel can take no more of them; those not told will be delivered again.
pub(super) async fn write(
    channel: &Channel,
    prefetch: u16,
    entries: &mut mpsc::UnboundedReceiver<Entry>,
) -> Result<Written, Trouble> {
    let mut written = Written::default();
    let mut settled = Settled::default();
    let mut received = Vec::with_capacity(BATCH);
    let mut batch = Vec::with_capacity(BATCH);
    while entries.recv_many(&mut received, BATCH).await > 0 {
        let mut halts = Vec::new();
        for entry in received.drain(..) {
            match entry {
                Entry::Ack(ack) => batch.push(ack),
                Entry::Halt(halt) => halts.push(halt),
            }
        }
        if !batch.is_empty() {
            let frames = write_batch(channel, prefetch, &mut settled, &mut batch).await?;
            written = Written {
                count: settled.count(),
                frames: written.frames + frames,
                last: Some(Instant::now()),
            };
        }
        for halt in halts {
            // Whoever asked may have thought better of it.
            let _ = halt.written.send(written);
            let _ = halt.end.await;
        }
    }
    Ok(written)
}

/// Gives how many acks and nacks it took.
async fn write_batch(
    channel: &Channel,
    prefetch: u16,
    settled: &mut Settled,
    batch: &mut Vec<Ack>,
) -> Result<usize, Trouble> {
    let (acked, refused): (Vec<u64>, Vec<&Ack>) =
        batch
            .iter()
            .fold((Vec::new(), Vec::new()), |(mut acked, mut refused), ack| {
                match ack.verdict {
                    Verdict::Ack => acked.push(ack.tag),
                    Verdict::Requeue | Verdict::Discard => refused.push(ack),
                }
                (acked, refused)
            });
    // Before the acks: an ack of all up to a tag must not take these with it.
    let nacks = refused.iter().map(|ack| {
        let options = BasicNackOptions {
            multiple: false,
            requeue: ack.verdict == Verdict::Requeue,
        };
        answer(channel.basic_nack(ack.tag, options))
    });
    futures_util::future::try_join_all(nacks).await?;
    settled.refuse(refused.iter().map(|ack| ack.tag));
    let Plan { up_to, singly } = settled.acknowledge(acked);
    let frames = refused.len() + usize::from(up_to.is_some()) + singly.len();
    let prefix = up_to.map(|tag| (tag, true));
    let acks = prefix
        .into_iter()
        .chain(singly.into_iter().map(|tag| (tag, false)))
        .map(|(tag, multiple)| answer(channel.basic_ack(tag, BasicAckOptions { multiple })));
    futures_util::future::try_join_all(acks).await?;
    // The broker answers no ack, and one that is written may be cut off on its way. This it does
    // answer, once it has all that was written before, and it changes nothing.
    let heard = channel.basic_qos(prefetch, BasicQosOptions::default());
    answer_within(HEARD, heard).await?;
    for ack in batch.drain(..) {
        // Nobody waits for the answer of a settlement that was dropped.
        let _ = ack.arrived.send(());
    }
    Ok(frames)
}

/// Which of a channel's tags are settled. They count up from 1 without a gap.
#[derive(Debug, Default)]
struct Settled {
    /// All up to this one.
    floor: u64,
    /// Those above the floor, which therefore have a gap before them.
    beyond: BTreeSet<u64>,
}

/// The acks to write.
#[derive(Debug, PartialEq)]
struct Plan {
    /// This one and all before it.
    up_to: Option<u64>,
    /// These alone.
    singly: Vec<u64>,
}

impl Settled {
    fn count(&self) -> u64 {
        self.floor + self.beyond.len() as u64
    }

    fn refuse(&mut self, tags: impl IntoIterator<Item = u64>) {
        self.beyond.extend(tags);
    }

    fn acknowledge(&mut self, mut tags: Vec<u64>) -> Plan {
        self.beyond.extend(&tags);
        while self.beyond.first() == Some(&(self.floor + 1)) {
            self.beyond.pop_first();
            self.floor += 1;
        }
        tags.sort_unstable();
        let within = tags.partition_point(|tag| *tag <= self.floor);
        let singly = tags.split_off(within);
        Plan {
            up_to: tags.last().copied(),
            singly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(up_to: Option<u64>, singly: &[u64]) -> Plan {
        Plan {
            up_to,
            singly: singly.to_vec(),
        }
    }

    #[test]
    fn what_has_no_gap_before_it_is_acked_at_once_and_the_rest_singly() {
        let mut settled = Settled::default();
        assert_eq!(settled.acknowledge(vec![3, 1, 2, 5]), plan(Some(3), &[5]));
        assert_eq!(settled.count(), 4);
        assert_eq!(settled.acknowledge(vec![7]), plan(None, &[7]));
        assert_eq!(settled.acknowledge(vec![4, 6, 9]), plan(Some(6), &[9]));
        assert_eq!(settled.acknowledge(vec![8]), plan(Some(8), &[]));
    }

    #[test]
    fn an_ack_of_all_before_never_covers_what_is_still_open() {
        let mut settled = Settled::default();
        settled.refuse([2]);
        assert_eq!(settled.acknowledge(vec![3]), plan(None, &[3]));
        assert_eq!(settled.acknowledge(vec![1]), plan(Some(1), &[]));
        assert_eq!(settled.acknowledge(vec![4]), plan(Some(4), &[]));
    }
}
