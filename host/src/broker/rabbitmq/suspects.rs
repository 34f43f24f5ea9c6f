//! [`RabbitSuspects`]: fetches from `QUEUE.suspects`, one message at a time and each over a connection of
//! its own, so that nothing waits in a worker that may die.
//!
//! The queue is made when a worker starts. When the first message is moved there would be the worst time:
//! then nodes may be dying too, and RabbitMQ can lose a queue that was made right before. Whoever may not make it
//! knocks until it is there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::acks;
use super::connection::{ACCESS_REFUSED, Connector, Events, Link, Trouble, answer, over};
use super::hold::{Desk, RabbitHold};
use super::loops::Loops;
use super::{SettlementMode, message, pause, topology};
use crate::broker::{BrokerError, Delivery, Notice, Standing, Suspects};

/// How often to look.
const LOOK: Duration = Duration::from_secs(2);

/// The suspects of one queue.
pub(super) struct RabbitSuspects {
    connector: Arc<Connector>,
    desk: Arc<Desk>,
    loops: Loops,
    name: String,
    looks: Interval,
    /// The queue was there when last asked.
    is_there: bool,
    /// We have tried to make it, and have it or may not.
    was_made: bool,
    /// For the next count.
    kept: Option<Channel>,
    /// The last try to fetch failed, and that was told.
    is_failing: bool,
}

impl RabbitSuspects {
    pub(super) fn new(connector: Arc<Connector>, desk: Arc<Desk>, loops: Loops) -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        RabbitSuspects {
            name: topology::suspects_name(&desk.queue),
            connector,
            desk,
            loops,
            looks,
            is_there: false,
            was_made: false,
            kept: None,
            is_failing: false,
        }
    }

    /// Whether there is something to fetch now.
    async fn look(&mut self) -> Result<bool, String> {
        let outlet = self.desk.publisher.outlet().await?;
        if !self.was_made {
            match outlet.make_suspects(&self.desk.queue).await {
                Ok(()) => self.is_there = true,
                Err(trouble) if trouble.code == Some(ACCESS_REFUSED) => {}
                Err(trouble) => return Err(trouble.text),
            }
            self.was_made = true;
        }
        if !self.is_there {
            let knocked = outlet.knocks_at(&self.name).await;
            self.is_there = knocked.map_err(|why| why.text().to_owned())?;
        }
        if !self.is_there {
            return Ok(false);
        }
        let link = outlet.link();
        let counted = async {
            let count = topology::count_again(link, &self.name, &mut self.kept).await?;
            self.is_there = count.is_some();
            Ok(count.unwrap_or_default() > 0 && !pause::is_paused(link, &self.desk.queue).await?)
        };
        counted.await.map_err(|trouble: Trouble| trouble.text)
    }

    async fn fetch(&self) -> Result<Option<Delivery>, BrokerError> {
        let (link, events) = self.connector.open("trying a suspect").await?;
        let fetched = async {
            let channel = link.channel().await?;
            let got = self.get(&channel).await?;
            Ok((channel, got))
        };
        let what = format!("cannot fetch from queue `{}`", self.name);
        let (channel, got) = fetched
            .await
            .map_err(|trouble: Trouble| trouble.while_doing(&what))?;
        let Some(got) = got else {
            link.close().await;
            return Ok(None);
        };
        Ok(Some(self.delivery(link, events, channel, got)))
    }

    async fn get(&self, channel: &Channel) -> Result<Option<BasicGetMessage>, Trouble> {
        let options = BasicGetOptions { no_ack: false };
        while let Some(got) = answer(channel.basic_get(self.name.as_str().into(), options)).await? {
            if !message::is_knock(&got.delivery.properties) {
                return Ok(Some(got));
            }
            let ack = channel.basic_ack(got.delivery.delivery_tag, BasicAckOptions::default());
            answer(ack).await?;
        }
        Ok(None)
    }

    fn delivery(
        &self,
        link: Link,
        mut events: Events,
        channel: Channel,
        got: BasicGetMessage,
    ) -> Delivery {
        let (acks, mut settled) = mpsc::unbounded_channel();
        self.loops.own(tokio::spawn(async move {
            // Either way the hold ends, and who has it hears of it.
            tokio::select! {
                _ = acks::write(&channel, 1, &mut settled) => {}
                _ = over(&mut events, |_| {}) => {}
            }
            link.close().await;
        }));
        let original = got.delivery.properties;
        Delivery {
            message: message::read(&original, got.delivery.data),
            crashes: message::crashes(&original, got.delivery.redelivered),
            standing: Standing::OnTrial,
            hold: Box::new(RabbitHold {
                desk: self.desk.clone(),
                acks,
                tag: got.delivery.delivery_tag,
                original,
            }),
        }
    }
}

#[async_trait]
impl Suspects for RabbitSuspects {
    async fn waiting(&mut self) {
        if self.desk.mode == SettlementMode::Native {
            return std::future::pending().await;
        }
        loop {
            self.looks.tick().await;
            match self.look().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(error, "cannot see the suspects of {}", self.name),
            }
        }
    }

    async fn take(&mut self) -> Option<Delivery> {
        match self.fetch().await {
            Ok(fetched) => {
                self.is_failing = false;
                fetched
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    (self.desk.notices)(Notice::Warning(format!(
                        "{error}; trying again every two seconds"
                    )));
                }
                None
            }
        }
    }
}
