//! What the client library alone takes for a worker's work on the same queue: `scutwork bench` holds a
//! worker against it. It supervises nothing: what breaks ends the measure.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::connection::{Connector, Link, Trouble, answer};
use super::{RabbitMqOptions, delay, topology};
use crate::broker::BrokerError;
use crate::name::QueueName;

/// A connection with one channel on it, and no more than that.
pub struct Bare {
    link: Link,
    channel: Channel,
}

impl Bare {
    /// Connects.
    ///
    /// # Errors
    /// As [`super::RabbitMq::connect`].
    pub async fn connect(options: &RabbitMqOptions) -> Result<Bare, BrokerError> {
        let (link, _) = Connector::new(options)?.open("baseline").await?;
        let channel = link
            .channel()
            .await
            .map_err(|trouble| trouble.while_doing("cannot open a channel"))?;
        Ok(Bare { link, channel })
    }

    /// Measures how long it takes to consume so many messages and to ack them, half a prefetch at
    /// a time, from the first that comes.
    ///
    /// # Errors
    /// When the broker refuses, or goes.
    pub async fn consume_and_ack(
        &self,
        queue: &QueueName,
        prefetch: u16,
        tasks: u64,
    ) -> Result<Duration, BrokerError> {
        let measured = async {
            let mut stream = self.consume(queue, prefetch).await?;
            let batch = u64::from(prefetch / 2).max(1);
            let mut began = None;
            for count in 1..=tasks {
                let delivery = stream.next().await.ok_or_else(ended)??;
                let began = *began.get_or_insert_with(Instant::now);
                if count % batch == 0 || count == tasks {
                    delivery.ack(BasicAckOptions { multiple: true }).await?;
                }
                if count == tasks {
                    return Ok(began.elapsed());
                }
            }
            Ok(Duration::ZERO)
        };
        let measured: Result<_, Trouble> = measured.await;
        measured.map_err(|trouble| trouble.while_doing("cannot measure the client library"))
    }

    /// Measures so many times how long it takes from a publish to its delivery on the same channel.
    ///
    /// # Errors
    /// When the broker refuses, or goes.
    pub async fn publish_to_deliver(
        &self,
        queue: &QueueName,
        body: &[u8],
        times: usize,
    ) -> Result<Vec<Duration>, BrokerError> {
        let measured = async {
            let mut stream = self.consume(queue, 1).await?;
            let mut took = Vec::with_capacity(times);
            for _ in 0..times {
                let began = Instant::now();
                let options = BasicPublishOptions::default();
                let properties = lapin::BasicProperties::default().with_delivery_mode(2);
                self.channel
                    .basic_publish("".into(), queue.as_str().into(), options, body, properties)
                    .await?;
                let delivery = stream.next().await.ok_or_else(ended)??;
                took.push(began.elapsed());
                delivery.ack(BasicAckOptions::default()).await?;
            }
            Ok(took)
        };
        let measured: Result<_, Trouble> = measured.await;
        measured.map_err(|trouble| trouble.while_doing("cannot measure the client library"))
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Consumer, Trouble> {
        topology::ensure_queue(&self.link, queue.as_str()).await?;
        answer(
            self.channel
                .basic_qos(prefetch.max(1), BasicQosOptions::default()),
        )
        .await?;
        answer(self.channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await
    }

    /// Removes a queue with all that stands beside it, and ends the connection.
    ///
    /// # Errors
    /// When the broker refuses, or goes.
    pub async fn remove(self, queue: &QueueName) -> Result<(), BrokerError> {
        let mut names = vec![queue.as_str().to_owned(), topology::dead_name(queue)];
        names.extend((0..delay::LEVELS).map(|level| delay::level_name(queue, level)));
        for name in names {
            // To delete what is not there is no error.
            let deleted = answer(
                self.channel
                    .queue_delete(name.as_str().into(), QueueDeleteOptions::default()),
            );
            deleted
                .await
                .map_err(|trouble| trouble.while_doing(&format!("cannot delete queue `{name}`")))?;
        }
        self.link.close().await;
        Ok(())
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.link.close().await;
    }
}

fn ended() -> Trouble {
    Trouble {
        code: None,
        text: "the broker ended the subscription".to_owned(),
    }
}
