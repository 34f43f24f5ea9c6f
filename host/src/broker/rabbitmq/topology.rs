//! What must be on the broker before a message can go there: task queues, dead-letter queues, and the
//! delay queues of [`super::delay`]. A queue that is there is taken as it is.

use std::time::{Duration, Instant};

use lapin::options::{BasicQosOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Queue};

use super::connection::{ACCESS_REFUSED, LOCKED, Link, NOT_FOUND, Trouble, answer};
use super::delay::{self, LEVELS};
use crate::broker::Depth;
use crate::name::QueueName;

const OTHER_ARGUMENTS: u16 = 406;

/// How old a quorum queue must be to outlive a SIGKILL of its node. RabbitMQ 3.10.8 and 4.0.5 keep which
/// queues there are in a table of Ra's, `names.dets`, and write that to its file (`auto_save` in
/// `ra_directory.erl`) only when nothing was added to it for half a second, which they look for twice a second. A
/// queue that is not in the file is lost with all that it confirmed: it is declared as there, refuses what is
/// published and answers a get with 541.
pub(super) const SAFE_AFTER: Duration = Duration::from_millis(1500);

/// What a quorum queue has for being counted. If its leader has not answered by then, RabbitMQ 3.10.8 and 4.0.5 say that
/// there are no messages and no consumers (`stat` in `rabbit_quorum_queue.erl`).
const COUNTED_WITHIN: Duration = Duration::from_millis(250);

/// How long zeros that may be none are doubted. A leader that is away for longer has others to care for it.
const DOUBTED_FOR: Duration = Duration::from_secs(10);

/// Where a task queue's dead letters are.
pub(super) fn dead_name(queue: &QueueName) -> String {
    format!("{queue}.dead")
}

/// Where a task queue's suspects are.
pub(super) fn suspects_name(queue: &QueueName) -> String {
    format!("{queue}.suspects")
}

/// Sees that a queue is there, and makes a durable quorum queue if not. Gives whether it did; then nothing is
/// to rely on the queue until [`SAFE_AFTER`].
///
/// It gets no other argument, so that a producer may declare it in the tutorial's way before or after us:
/// 3.10.8 and 4.0.5 alike answer a declaration that says `x-queue-type` alone with 406 when the queue was
/// given `x-delivery-limit`, `x-dead-letter-exchange`, `x-dead-letter-strategy` or `x-overflow`. So from
/// version 4 on the broker drops what came back to the queue twenty times, which `super::hold` sees to
/// that nothing does.
pub(super) async fn ensure_queue(link: &Link, name: &str) -> Result<bool, Trouble> {
    if count(link, name).await?.is_some() {
        return Ok(false);
    }
    let channel = link.channel().await?;
    match declare(&channel, name, quorum()).await {
        // Somebody else was faster, with other arguments.
        Err(trouble) if trouble.code == Some(OTHER_ARGUMENTS) => match count(link, name).await? {
            Some(_) => Ok(true),
            None => Err(trouble),
        },
        declared => declared.map(|()| true),
    }
}

/// How often a message beside the task queue may come back: a dead letter that is looked at, a suspect, one
/// that is not due yet. To be without end is said in two ways that
/// exclude each other: 4.0.5 has no limit at -1 and twenty without the argument, but 3.10.8 drops at -1
/// what was put back once.
const LOOKS: i64 = 1_000_000_000;

/// Sees that a queue of our own beside the task queue is there. Nobody else declares it, so that it may
/// say more. Gives whether it was made, like [`ensure_queue`].
pub(super) async fn ensure_own_queue(link: &Link, name: &str) -> Result<bool, Trouble> {
    if count(link, name).await?.is_some() {
        return Ok(false);
    }
    let channel = link.channel().await?;
    match declare(&channel, name, patient()).await {
        Err(trouble) if trouble.code == Some(OTHER_ARGUMENTS) => ensure_queue(link, name).await,
        declared => declared.map(|()| true),
    }
}

/// Whether the queue for dead letters, which is there, is one that keeps what was looked at often.
pub(super) async fn is_patient(link: &Link, queue: &QueueName) -> Result<bool, Trouble> {
    let channel = link.channel().await?;
    match declare(&channel, &dead_name(queue), patient()).await {
        Ok(()) => Ok(true),
        // It has other arguments, the version knows no such argument, or we may not ask.
        Err(trouble) if matches!(trouble.code, Some(OTHER_ARGUMENTS | ACCESS_REFUSED)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

/// The arguments of a queue for dead letters that we make.
pub(super) fn patient() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(LOOKS));
    arguments
}

/// The only argument of a task queue that we make.
pub(super) fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments
}

/// Counts what waits on a task queue and beside it. None: there is no such queue.
pub(super) async fn depth(link: &Link, queue: &QueueName) -> Result<Option<Depth>, Trouble> {
    let Some(found) = look(&link.channel().await?, queue.as_str()).await? else {
        return Ok(None);
    };
    let dead = count(link, &dead_name(queue)).await?.unwrap_or_default();
    let suspects = count(link, &suspects_name(queue)).await?;
    let mut delayed = 0;
    for level in 0..LEVELS {
        // Levels are made from the lowest up, so that the first gap is the end.
        match count(link, &delay::level_name(queue, level)).await? {
            Some(waiting) => delayed += waiting,
            None => break,
        }
    }
    Ok(Some(Depth {
        ready: u64::from(found.message_count()) + suspects.unwrap_or_default(),
        running: None,
        delayed,
        dead,
        consumers: Some(found.consumer_count().into()),
    }))
}

/// How many messages are ready on a queue. None: there is no such queue. Asked on a channel of its
/// own, because the broker closes the channel on which it answers no.
pub(super) async fn count(link: &Link, name: &str) -> Result<Option<u64>, Trouble> {
    count_on(&link.channel().await?, name).await
}

/// The same on a channel that is of no more use when the answer is none.
pub(super) async fn count_on(channel: &Channel, name: &str) -> Result<Option<u64>, Trouble> {
    let found = look(channel, name).await?;
    Ok(found.map(|queue| queue.message_count().into()))
}

/// The same on a channel that is kept from one count to the next.
pub(super) async fn count_again(
    link: &Link,
    name: &str,
    kept: &mut Option<Channel>,
) -> Result<Option<u64>, Trouble> {
    let channel = match kept.take() {
        Some(channel) => channel,
        None => link.channel().await?,
    };
    let counted = count_on(&channel, name).await?;
    if counted.is_some() {
        *kept = Some(channel);
    }
    Ok(counted)
}

/// Removes what waits for workers, suspects too, and counts it. None: there is no such queue.
pub(super) async fn purge_ready(link: &Link, queue: &QueueName) -> Result<Option<u64>, Trouble> {
    let Some(removed) = purge(link, queue.as_str()).await? else {
        return Ok(None);
    };
    let suspects = purge(link, &suspects_name(queue)).await?;
    Ok(Some(removed + suspects.unwrap_or_default()))
}

/// Removes what is ready on a queue, and counts it. None: there is no such queue.
pub(super) async fn purge(link: &Link, name: &str) -> Result<Option<u64>, Trouble> {
    let channel = link.channel().await?;
    match answer(channel.queue_purge(name.into(), QueuePurgeOptions::default())).await {
        Ok(removed) => Ok(Some(removed.into())),
        Err(trouble) if trouble.code == Some(NOT_FOUND) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// Whether there is a queue, be it one that cannot be reached now: the broker returns what is published to a
/// durable classic queue while the node that has it is down, as if there were none.
pub(super) async fn is_known(link: &Link, name: &str) -> Result<bool, Trouble> {
    match ask(&link.channel().await?, name).await {
        Ok(_) => Ok(true),
        Err(trouble) => match trouble.code {
            // It is its owner's alone.
            Some(LOCKED) => Ok(true),
            // The same code as for none; the text is that of 3.10.8 and of 4.0.5.
            Some(NOT_FOUND) => Ok(trouble.text.contains("is down or inaccessible")),
            // We may not know.
            Some(ACCESS_REFUSED) => Ok(false),
            _ => Err(trouble),
        },
    }
}

/// What the broker says of a queue. Where that are zeros, it may only have had no time to count: such an answer is
/// doubted for a while, and asked for again.
pub(super) async fn look(channel: &Channel, name: &str) -> Result<Option<Queue>, Trouble> {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let found = match ask(channel, name).await {
            Ok(found) => found,
            Err(trouble) if trouble.code == Some(NOT_FOUND) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let took = asked.elapsed();
        let is_counted = found.message_count() > 0
            || found.consumer_count() > 0
            || took < COUNTED_WITHIN
            || took < COUNTED_WITHIN / 2 + way(channel).await?;
        if is_counted || began.elapsed() >= DOUBTED_FOR {
            return Ok(Some(found));
        }
    }
}

/// How long the way to the broker and back is: this changes nothing, and asks no queue.
async fn way(channel: &Channel) -> Result<Duration, Trouble> {
    let asked = Instant::now();
    answer(channel.basic_qos(0, BasicQosOptions::default())).await?;
    Ok(asked.elapsed())
}

/// Asks after a queue without making it.
async fn ask(channel: &Channel, name: &str) -> Result<Queue, Trouble> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    answer(channel.queue_declare(name.into(), passive, FieldTable::default())).await
}

/// How long whoever moves delays may look at the first of a delay queue.
const LOOKED_AT: Duration = Duration::from_millis(300);

/// Removes what is due later, and counts it.
pub(super) async fn purge_delays(link: &Link, queue: &QueueName) -> Result<u64, Trouble> {
    let mut removed = 0;
    let mut is_sure = false;
    loop {
        let mut more = 0;
        // From the highest down, the way that messages go, so that none slips past.
        for level in (0..LEVELS).rev() {
            more += purge(link, &delay::level_name(queue, level))
                .await?
                .unwrap_or_default();
        }
        removed += more;
        if more == 0 && is_sure {
            return Ok(removed);
        }
        // What is looked at is in no queue, and comes back.
        is_sure = true;
        tokio::time::sleep(LOOKED_AT).await;
    }
}

pub(super) async fn declare(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> Result<(), Trouble> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    answer(channel.queue_declare(name.into(), options, arguments))
        .await
        .map(drop)
        .map_err(|trouble| trouble.lacking("configure", name))
}
