//! The mark of a paused queue: `QUEUE.paused`, a durable queue beside it that holds a message for as long
//! as the pause lasts.
//!
//! The mark is the message and not the queue's existence, so that looking is a passive declare that the
//! broker answers with a count. Asking for a queue that is not there would close the channel and put an
//! error into the broker's log at every look of every worker. It needs no kind of right that delays and
//! dead letters do not need, and no plugin.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use tokio::sync::watch;

use super::connection::{Link, Trouble, answer};
use super::topology;
use crate::name::QueueName;

/// How often a consumer looks for the mark.
const LOOK: Duration = Duration::from_secs(2);

/// AMQP's word for a message that outlasts the broker.
const PERSISTENT: u8 = 2;

/// Where the mark is.
pub(super) fn mark_name(queue: &QueueName) -> String {
    format!("{queue}.paused")
}

/// Sees that there is a place for the mark, and whether it is there.
pub(super) async fn prepare(link: &Link, queue: &QueueName) -> Result<bool, Trouble> {
    topology::ensure_queue(link, &mark_name(queue)).await?;
    is_paused(link, queue).await
}

/// Whether the queue is paused. One that was never marked is not.
pub(super) async fn is_paused(link: &Link, queue: &QueueName) -> Result<bool, Trouble> {
    let marks = topology::count(link, &mark_name(queue)).await?;
    Ok(marks.unwrap_or_default() > 0)
}

/// Puts the mark there, and returns when it is safe.
pub(super) async fn mark(link: &Link, queue: &QueueName) -> Result<(), Trouble> {
    if topology::ensure_queue(link, &mark_name(queue)).await? {
        tokio::time::sleep(topology::SAFE_AFTER).await;
    }
    if is_paused(link, queue).await? {
        return Ok(());
    }
    let channel = link.channel().await?;
    answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let name = mark_name(queue);
    let confirmed = answer(async {
        channel
            .basic_publish(
                "".into(),
                name.as_str().into(),
                options,
                b"paused",
                properties,
            )
            .await?
            .await
    });
    match confirmed.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(Trouble {
                code: None,
                text: format!("the broker did not keep the mark on queue `{name}`"),
            })
        }
    }
}

/// Takes the mark away, however many put it there.
pub(super) async fn unmark(link: &Link, queue: &QueueName) -> Result<(), Trouble> {
    topology::purge(link, &mark_name(queue)).await.map(drop)
}

/// Keeps `is_paused` as the mark says, until the broker answers no more, and says so. What it does not
/// let us see stays as it was.
pub(super) async fn follow(
    link: &Link,
    queue: &QueueName,
    is_paused: &watch::Sender<bool>,
) -> String {
    let name = mark_name(queue);
    let mut channel = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match topology::count_again(link, &name, &mut channel).await {
            Ok(Some(marks)) => {
                is_paused.send_if_modified(|known| std::mem::replace(known, marks > 0) != *known);
            }
            Ok(None) => {
                // Somebody deleted the place, and the mark with it.
                if let Err(trouble) = topology::ensure_queue(link, &name).await {
                    tracing::debug!(error = trouble.text, "no place for the mark of {queue}");
                }
            }
            // Heartbeats come whether or not what we write arrives; an answer shows that it does.
            Err(trouble) if trouble.code.is_none() => return trouble.text,
            Err(trouble) => {
                tracing::debug!(error = trouble.text, "cannot see whether {queue} is paused")
            }
        }
    }
}

/// What is known of a pause. None: nothing, and then the queue counts as not paused.
pub(super) struct Seen(pub(super) Option<watch::Receiver<bool>>);

impl Seen {
    /// Waits until the queue is paused, or is not. Cancel safe.
    pub(super) async fn becomes(&mut self, wanted: bool) {
        if let Some(is_paused) = &mut self.0
            && is_paused
                .wait_for(|is_paused| *is_paused == wanted)
                .await
                .is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
