//! `scutwork submit`: puts tasks on a queue and, if asked, waits for what becomes of them.

pub(super) mod payload;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::time::Instant;

use self::payload::{Payload, Payloads};
use self::tally::Tally;
use super::{Exit, Format, Global, Stopped, connect, log, output};
use crate::broker::{Broker, BrokerError, Message, NoticeSink, Record, Replies, ReplyTo};
use crate::config::Config;
use crate::name::{PluginName, QueueName};
use crate::settlement::{MAX_DELAY, Reply, ReplyKind};
use crate::task::new_id;
use crate::units::{parse_duration, show_duration, show_size};

/// How many messages go to the broker in one publish, and after how many bytes it is enough.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// The plugin to run
    plugin: String,
    /// The payload: a text, @FILE, or - for stdin
    #[arg(
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    payload: String,
    /// Submit the payload this many times
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "each_line"
    )]
    count: u64,
    /// Submit each line of the payload, such as - for stdin, as a task of its own
    #[arg(long, requires = "payload")]
    each_line: bool,
    /// Wait for the tasks to end, and print what they return
    #[arg(long)]
    wait: bool,
    /// With --wait: how long [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Run the task this much later, at most 30 days
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Higher runs first, where the queue has priorities
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// A header for the plugin; may be given again
    #[arg(long = "header", value_name = "K=V", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// What the payload is, for example application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The task's id, for one task [default: a new UUIDv7]
    #[arg(long, value_name = "ID", conflicts_with = "each_line")]
    id: Option<String>,
}

/// `K=V`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Runs the command.
pub(super) async fn submit(
    global: &Global,
    config: Config,
    args: SubmitArgs,
) -> Result<Exit, Stopped> {
    let queue = one_queue(&config)?;
    let payload = check(&config, &args)?;
    let notices: NoticeSink = Arc::new(|notice| log::tell_notice(&notice));
    let broker = connect(&config.broker, notices).await?;
    let order = Order {
        queue,
        args: &args,
        max_payload: config.rules.max_payload,
    };
    let ended = if args.wait {
        let mut replies = broker.replies().await?;
        let ended = order.submit_and_wait(global, &mut *replies, payload).await;
        replies.close().await;
        ended
    } else {
        order.submit(global, broker.as_ref(), payload).await
    };
    broker.close().await;
    ended
}

fn one_queue(config: &Config) -> Result<QueueName, Stopped> {
    match config.queues.as_slice() {
        [queue] => Ok(queue.clone()),
        _ => Err(Stopped::usage(
            "submit puts tasks on one queue; give --queue once",
        )),
    }
}

/// Everything about the arguments that can be wrong, before a broker is asked.
fn check(config: &Config, args: &SubmitArgs) -> Result<Payload, Stopped> {
    args.plugin.parse::<PluginName>().map_err(Stopped::usage)?;
    if args.id.is_some() && args.count != 1 {
        return Err(Stopped::usage("--id names one task; leave out --count"));
    }
    if args.delay.is_some_and(|delay| delay > MAX_DELAY) {
        return Err(Stopped::usage("--delay is at most 30 days"));
    }
    if args
        .headers
        .iter()
        .any(|(name, _)| name.starts_with("scutwork-"))
    {
        return Err(Stopped::usage(
            "headers that start with scutwork- are the host's own",
        ));
    }
    let payload = Payload::parse(&args.payload, args.each_line)?;
    check_size(payload.known_size(), config.rules.max_payload)?;
    Ok(payload)
}

pub(super) fn check_size(size: u64, limit: u64) -> Result<(), Stopped> {
    if size <= limit {
        return Ok(());
    }
    Err(Stopped::usage(format!(
        "the payload has {}, over the limit of {}; raise worker.max_payload in scutwork.toml here and at the \
         workers, or send a reference to the data",
        show_size(size),
        show_size(limit)
    )))
}

/// What is to be submitted, and where.
struct Order<'a> {
    queue: QueueName,
    args: &'a SubmitArgs,
    max_payload: u64,
}

impl Order<'_> {
    async fn submit(
        &self,
        global: &Global,
        broker: &dyn Broker,
        payload: Payload,
    ) -> Result<Exit, Stopped> {
        let mut payloads = payload.repeated(self.args.count)?;
        let mut sent = 0;
        while let Some(batch) = self.next_batch(&mut payloads, None)? {
            let ids: Vec<_> = batch
                .iter()
                .filter_map(|message| message.id.clone())
                .collect();
            broker
                .publish(&self.queue, batch, self.args.delay)
                .await
                .map_err(|error| partly(error, sent))?;
            sent += ids.len() as u64;
            match global.output {
                Format::Json => ids
                    .iter()
                    .for_each(|id| output::json(&json!({ "task": id }))),
                Format::Text => ids.iter().for_each(|id| output::line(id)),
            }
        }
        if global.quiet == 0 {
            let tasks = if sent == 1 { "task" } else { "tasks" };
            output::say(&format!(
                "{sent} {tasks} on queue {} of {}",
                self.queue,
                broker.name()
            ));
        }
        Ok(Exit::Done)
    }

    async fn submit_and_wait(
        &self,
        global: &Global,
        replies: &mut dyn Replies,
        payload: Payload,
    ) -> Result<Exit, Stopped> {
        let mut payloads = payload.repeated(self.args.count)?;
        let deadline = self.args.timeout.map(|timeout| Instant::now() + timeout);
        let mut waiting = Waiting::new(global, payloads.total());
        let address = replies.address().to_owned();
        while let Some(batch) = self.next_batch(&mut payloads, Some(&address))? {
            let sent = waiting.tally.total();
            waiting.sent(&batch);
            replies
                .publish(&self.queue, batch, self.args.delay)
                .await
                .map_err(|error| partly(error, sent))?;
            // What has come back meanwhile; the rest is waited for below.
            while let Some(reply) = replies.next().now_or_never() {
                waiting.received(reply?);
            }
        }
        waiting.all_sent();
        while !waiting.outstanding.is_empty() {
            let reply = match deadline {
                None => replies.next().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, replies.next()).await {
                    Ok(reply) => reply,
                    Err(_) => return Ok(waiting.timed_out(self.args.timeout.unwrap_or_default())),
                },
            };
            waiting.received(reply.map_err(|error| waiting.cut_off(error))?);
        }
        Ok(waiting.ended())
    }

    /// The next messages to send. None: there are no more.
    fn next_batch(
        &self,
        payloads: &mut Payloads,
        reply_to: Option<&str>,
    ) -> Result<Option<Vec<Message>>, Stopped> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(body) = payloads.next()? else { break };
            bytes += body.len();
            check_size(body.len() as u64, self.max_payload)?;
            let id = self.args.id.clone().unwrap_or_else(new_id);
            batch.push(Message {
                plugin: Some(self.args.plugin.clone()),
                reply_to: reply_to.map(|address| ReplyTo {
                    address: address.to_owned(),
                    correlation_id: Some(id.clone()),
                    notify: true,
                }),
                id: Some(id),
                content_type: self.args.content_type.clone(),
                headers: self.args.headers.clone(),
                body,
                priority: self.args.priority,
                record: Record::default(),
                unreadable: None,
            });
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }
}

fn partly(error: BrokerError, sent: u64) -> Stopped {
    let reason = anyhow::Error::new(error);
    let reason = match sent {
        0 => reason,
        sent => reason.context(format!(
            "{sent} tasks were submitted before the broker failed"
        )),
    };
    Stopped::new(Exit::Unavailable, reason)
}

/// The tasks that have not ended, and how the others did.
struct Waiting {
    /// By id: whether a retry of it was heard of.
    outstanding: HashMap<String, bool>,
    tally: Tally,
    json: bool,
}

impl Waiting {
    fn new(global: &Global, total: Option<u64>) -> Self {
        Waiting {
            outstanding: HashMap::new(),
            tally: Tally::new(global, total),
            json: global.output == Format::Json,
        }
    }

    fn sent(&mut self, batch: &[Message]) {
        let ids = batch.iter().filter_map(|message| message.id.clone());
        self.outstanding.extend(ids.map(|id| (id, false)));
        self.tally.sent(batch.len() as u64);
    }

    fn all_sent(&mut self) {
        self.tally.all_sent();
    }

    fn received(&mut self, (correlation_id, reply): (Option<String>, Reply)) {
        let Some(id) = correlation_id else { return };
        // At least once: the end of a task may be told twice.
        let Some(heard_of_retry) = self.outstanding.get_mut(&id) else {
            return;
        };
        match reply.kind {
            ReplyKind::Retry => {
                if !std::mem::replace(heard_of_retry, true) {
                    self.tally.retried();
                }
                self.tally.note(&format!("retry: {id}: {}", text(&reply)));
            }
            ReplyKind::Parked => self.tally.note(&format!("parked: {id}: {}", text(&reply))),
            ReplyKind::Done => {
                self.outstanding.remove(&id);
                let json = self.json;
                self.tally.done(|several| {
                    if json {
                        show_json(&id, &reply)
                    } else {
                        show(&reply, several)
                    }
                });
            }
            ReplyKind::Dead => {
                self.outstanding.remove(&id);
                let json = self.json;
                self.tally.dead(|| {
                    if json {
                        show_json(&id, &reply)
                    } else {
                        show_dead(&id, &reply)
                    }
                });
            }
        }
    }

    fn ended(self) -> Exit {
        if self.tally.finish() == 0 {
            Exit::Done
        } else {
            Exit::No
        }
    }

    fn timed_out(self, timeout: Duration) -> Exit {
        let left = self.outstanding.len();
        self.tally.finish();
        output::complain(&format!(
            "{left} of the tasks had not ended after {}; they stay on the queue and go on",
            show_duration(timeout)
        ));
        Exit::TimedOut
    }

    fn cut_off(&self, error: BrokerError) -> Stopped {
        let left = self.outstanding.len();
        Stopped::new(
            Exit::Unavailable,
            anyhow::Error::new(error).context(format!(
                "{left} of the tasks had not ended; they stay on the queue, but their replies are lost"
            )),
        )
    }
}

fn show(reply: &Reply, several: bool) {
    output::body(&reply.body);
    if several && !reply.body.ends_with(b"\n") {
        output::body(b"\n");
    }
}

fn show_dead(id: &str, reply: &Reply) {
    output::say(&format!("dead: {id}: {}", text(reply)));
}

fn show_json(id: &str, reply: &Reply) {
    output::json(&json!({
        "task": id,
        "outcome": reply.kind.as_str(),
        "attempt": reply.attempt,
        "content_type": reply.content_type,
        "body": output::bytes_for_json(&reply.body),
    }));
}

fn text(reply: &Reply) -> String {
    output::one_line(&String::from_utf8_lossy(&reply.body), 2000)
}
