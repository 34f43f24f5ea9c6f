//! [`SqliteSuspects`]: claims the messages that are on trial, which no consumer claims.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::consumer::{SqliteHold, strays};
use super::desk::{Desk, Kind};
use super::reader::Reader;
use crate::broker::{Delivery, Standing, Suspects};
use crate::name::QueueName;

/// How often to look. Nobody waits for a suspect, and every commit would wake who listens to the bell.
const LOOK: Duration = Duration::from_secs(1);

/// The suspects of one queue of the file.
pub(super) struct SqliteSuspects {
    desk: Desk,
    reader: Reader,
    queue: QueueName,
    looks: Interval,
}

impl SqliteSuspects {
    pub(super) fn new(desk: Desk, reader: Reader, queue: QueueName) -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        SqliteSuspects {
            desk,
            reader,
            queue,
            looks,
        }
    }
}

#[async_trait]
impl Suspects for SqliteSuspects {
    async fn waiting(&mut self) {
        loop {
            self.looks.tick().await;
            let name = self.queue.clone();
            let seen = self
                .reader
                .read(move |store| store.has_suspects(name.as_str()));
            // The consumer of this queue tells of a file that cannot be read.
            if seen.await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn take(&mut self) -> Option<Delivery> {
        let place = self.desk.place().await.ok()?;
        let name = self.queue.clone();
        let answer = place.ask(Kind::Take, strays, move |store| {
            store.claim_suspect(name.as_str())
        });
        let claimed = answer.await.ok()?.ok()?.taken.pop()?;
        let hold = SqliteHold::new(&self.desk, &claimed, None);
        Some(Delivery {
            message: claimed.message,
            crashes: claimed.crashes,
            standing: Standing::OnTrial,
            hold: Box::new(hold),
        })
    }
}
