//! [`RabbitReplies`]: AMQP's direct reply-to, which ties replies to the channel of the request.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::Consumer as Stream;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use tokio::task::JoinSet;

use super::connection::{Connector, answer};
use super::outlet::Outlet;
use super::{message, publish_all, publisher};
use crate::broker::{BrokerError, Message, NoticeSink, Replies};
use crate::name::QueueName;
use crate::settlement::Reply;

/// The pseudo-queue of direct reply-to; the broker makes an address of it when a request passes.
const ADDRESS: &str = "amq.rabbitmq.reply-to";

/// An address for replies on a connection of its own.
pub(super) struct RabbitReplies {
    outlet: Arc<Outlet>,
    stream: Stream,
    notices: NoticeSink,
    // One loop, which passes on alarms and ends with this.
    _watching: JoinSet<()>,
}

impl RabbitReplies {
    pub(super) async fn open(
        connector: &Connector,
        notices: NoticeSink,
    ) -> Result<Self, BrokerError> {
        let (outlet, events) = publisher::open(connector).await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consuming = outlet.channel().basic_consume(
            ADDRESS.into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let stream = answer(consuming)
            .await
            .map_err(|trouble| trouble.while_doing("cannot listen for replies"))?;
        let mut watching = JoinSet::new();
        let (watched, told) = (outlet.clone(), notices.clone());
        watching.spawn(async move {
            publisher::watch_over(&watched, events, &told).await;
        });
        Ok(RabbitReplies {
            outlet,
            stream,
            notices,
            _watching: watching,
        })
    }
}

#[async_trait]
impl Replies for RabbitReplies {
    fn address(&self) -> &str {
        ADDRESS
    }

    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError> {
        publish_all(&self.outlet, &self.notices, queue, messages, after).await
    }

    async fn next(&mut self) -> Result<(Option<String>, Reply), BrokerError> {
        let why = tokio::select! {
            biased;
            next = self.stream.next() => match next {
                Some(Ok(reply)) => return Ok(message::read_reply(&reply.properties, reply.data)),
                Some(Err(error)) => error.to_string(),
                None => "the broker ended the subscription".to_owned(),
            },
            why = self.outlet.failed() => why,
        };
        Err(BrokerError::Unavailable(anyhow!(
            "replies that were to come are lost, their tasks are not: {why}"
        )))
    }

    async fn close(self: Box<Self>) {
        self.outlet.close().await;
    }
}
