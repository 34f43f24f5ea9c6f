//! Replies at an address in the same file.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::desk::{Answer, Desk, Kind};
use super::publish;
use super::store::Store;
use crate::broker::{BrokerError, Message, Replies};
use crate::name::QueueName;
use crate::settlement::Reply;

/// How many replies are fetched at a time.
const BATCH: u32 = 256;

/// How long to wait for a bell before looking all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Fetched = Vec<(Option<String>, Reply)>;

/// Receives the replies to one address.
pub(super) struct SqliteReplies {
    desk: Desk,
    address: String,
    fetched: VecDeque<(Option<String>, Reply)>,
    asked: Option<Answer<Fetched>>,
    wake: watch::Receiver<u64>,
    idle_until: Option<Instant>,
}

impl SqliteReplies {
    pub(super) fn new(desk: Desk) -> Self {
        SqliteReplies {
            wake: desk.wake(),
            desk,
            address: format!("sqlite-reply:{}", uuid::Uuid::now_v7()),
            fetched: VecDeque::new(),
            asked: None,
            idle_until: None,
        }
    }

    /// One step towards a reply. Cancel safe.
    async fn step(&mut self) -> Result<(), BrokerError> {
        if let Some(answer) = &mut self.asked {
            let answer = answer.await;
            self.asked = None;
            let replies = answer.unwrap_or_else(|_| Err(self.desk.closed()))?;
            if replies.is_empty() {
                self.idle_until = Some(Instant::now() + LOOK_AGAIN);
            }
            self.fetched.extend(replies);
        } else if let Some(until) = self.idle_until {
            tokio::select! {
                _ = self.wake.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            self.idle_until = None;
        } else {
            let desk = self.desk.clone();
            let place = desk.place().await?;
            self.wake.borrow_and_update();
            let address = self.address.clone();
            let fetch = move |store: &Store<'_>| store.take_replies(&address, BATCH);
            self.asked = Some(place.ask(Kind::Take, |_| Vec::new(), fetch));
        }
        Ok(())
    }
}

#[async_trait]
impl Replies for SqliteReplies {
    fn address(&self) -> &str {
        &self.address
    }

    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError> {
        publish(&self.desk, queue, messages, after).await
    }

    async fn next(&mut self) -> Result<(Option<String>, Reply), BrokerError> {
        loop {
            if let Some(reply) = self.fetched.pop_front() {
                return Ok(reply);
            }
            self.step().await?;
        }
    }

    async fn close(self: Box<Self>) {
        // Nobody but this knows the address; what still comes to it is pruned.
    }
}
