//! What must be on the broker before a message can go there: task queues, dead-letter queues, and the
//! delay queues of [`super::delay`]. A queue that is there is taken as it is.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind, Queue};

use super::connection::{Link, Trouble, answer};
use super::delay::{self, LEVELS};
use crate::broker::Depth;
use crate::name::QueueName;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const OTHER_ARGUMENTS: u16 = 406;

/// Where a task queue's dead letters are.
pub(super) fn dead_name(queue: &QueueName) -> String {
    format!("{queue}.dead")
}

/// Where a task queue's suspects are.
pub(super) fn suspects_name(queue: &QueueName) -> String {
    format!("{queue}.suspects")
}

/// Sees that a queue is there, and makes a durable quorum queue if not.
///
/// It gets no other argument, so that a producer may declare it in the tutorial's way before or after us:
/// 3.10.8 and 4.0.5 alike answer a declaration that says `x-queue-type` alone with 406 when the queue was
/// given `x-delivery-limit`, `x-dead-letter-exchange`, `x-dead-letter-strategy` or `x-overflow`. So from
/// version 4 on the broker drops what came back to the queue twenty times, which `super::hold` sees to
/// that nothing does.
pub(super) async fn ensure_queue(link: &Link, name: &str) -> Result<(), Trouble> {
    if count(link, name).await?.is_some() {
        return Ok(());
    }
    let channel = link.channel().await?;
    match declare(&channel, name, quorum()).await {
        // Somebody else was faster, with other arguments.
        Err(trouble) if trouble.code == Some(OTHER_ARGUMENTS) => match count(link, name).await? {
            Some(_) => Ok(()),
            None => Err(trouble),
        },
        declared => declared,
    }
}

/// How often a message beside the task queue may come back: a dead letter that is looked at, a suspect. To be without end is said in two ways that
/// exclude each other: 4.0.5 has no limit at -1 and twenty without the argument, but 3.10.8 drops at -1
/// what was put back once.
const LOOKS: i64 = 1_000_000_000;

/// Sees that a queue of our own beside the task queue is there. Nobody else declares it, so that it may
/// say more.
pub(super) async fn ensure_own_queue(link: &Link, name: &str) -> Result<(), Trouble> {
    if count(link, name).await?.is_some() {
        return Ok(());
    }
    let channel = link.channel().await?;
    match declare(&channel, name, patient()).await {
        Err(trouble) if trouble.code == Some(OTHER_ARGUMENTS) => ensure_queue(link, name).await,
        declared => declared,
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

/// Binds a queue to its delay queues, where messages may be waiting: one that was deleted and made again
/// has lost that. Without the right to do so, of which the answer tells, all else still works.
pub(super) async fn reattach_delays(link: &Link, queue: &QueueName) -> bool {
    match link.channel().await {
        Ok(channel) => ensure_due(&channel, queue).await.is_ok(),
        Err(_) => false,
    }
}

/// Sees that what comes out of the delay queues finds the task queue.
async fn ensure_due(channel: &Channel, queue: &QueueName) -> Result<(), Trouble> {
    let due = delay::due_name(queue);
    exchange(channel, &due, ExchangeKind::Fanout).await?;
    bind_queue(channel, queue.as_str(), &due, "").await
}

/// Sees that a level is there, and that it leads on: to the level below, or from the lowest to the task
/// queue. The lower levels must be there. Where we have no right to make it, one that is there must do.
pub(super) async fn ensure_level(
    link: &Link,
    queue: &QueueName,
    level: u32,
) -> Result<(), Trouble> {
    match make_level(link, queue, level).await {
        Err(trouble) if trouble.code == Some(ACCESS_REFUSED) => {
            let name = delay::level_name(queue, level);
            if is_exchange(link, &name).await? && count(link, &name).await?.is_some() {
                Ok(())
            } else {
                Err(trouble)
            }
        }
        made => made,
    }
}

async fn make_level(link: &Link, queue: &QueueName, level: u32) -> Result<(), Trouble> {
    let channel = link.channel().await?;
    let name = delay::level_name(queue, level);
    let next = match level.checked_sub(1) {
        None => {
            ensure_due(&channel, queue).await?;
            delay::due_name(queue)
        }
        Some(below) => delay::level_name(queue, below),
    };
    exchange(&channel, &name, ExchangeKind::Topic).await?;
    declare(&channel, &name, level_arguments(level, &next)).await?;
    bind_queue(&channel, &name, &name, &delay::binding_key(level, 1)).await?;
    let bound = answer(channel.exchange_bind(
        next.as_str().into(),
        name.into(),
        delay::binding_key(level, 0).into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    ));
    bound
        .await
        .map_err(|trouble| trouble.lacking("write to", &next))
}

fn level_arguments(level: u32, next: &str) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = quorum();
    arguments.insert(
        "x-message-ttl".into(),
        AMQPValue::LongLongInt(delay::time_to_live(level)),
    );
    arguments.insert("x-dead-letter-exchange".into(), text(next));
    // Without both of these the broker forgets a message before the next queue has it.
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
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

async fn look(channel: &Channel, name: &str) -> Result<Option<Queue>, Trouble> {
    let asked = answer(channel.queue_declare(
        name.into(),
        QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        },
        FieldTable::default(),
    ))
    .await;
    match asked {
        Ok(queue) => Ok(Some(queue)),
        Err(trouble) if trouble.code == Some(NOT_FOUND) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// Removes what is due later, and counts it.
pub(super) async fn purge_delays(link: &Link, queue: &QueueName) -> Result<u64, Trouble> {
    let mut removed = 0;
    // From the highest down, the way that messages go, so that none slips past.
    for level in (0..LEVELS).rev() {
        removed += purge(link, &delay::level_name(queue, level))
            .await?
            .unwrap_or_default();
    }
    Ok(removed)
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

async fn bind_queue(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), Trouble> {
    let bound = answer(channel.queue_bind(
        queue.into(),
        exchange.into(),
        key.into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    ));
    bound
        .await
        .map_err(|trouble| trouble.lacking("write to", queue))
}

/// Whether there is such an exchange. Asked on a channel of its own, like [`count`].
async fn is_exchange(link: &Link, name: &str) -> Result<bool, Trouble> {
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Topic;
    match answer(channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await
    {
        Ok(()) => Ok(true),
        Err(trouble) if trouble.code == Some(NOT_FOUND) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), Trouble> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    answer(channel.exchange_declare(name.into(), kind, options, FieldTable::default()))
        .await
        .map_err(|trouble| trouble.lacking("configure", name))
}
