//! [`Store`]: what the tasks of a chaos lie on, how it is struck, and what is left on it.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, ReplyTo};
use scutwork::name::QueueName;
use scutwork::settlement::ReplyKind;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::Fate;
use super::books::Books;
use crate::broker_contract::printed;
use crate::support::rabbitmq::{Cluster, version};

/// Where the workers of RabbitMQ tell of ends: a queue that outlives the broker, as a requester's own
/// connection does not.
const ACCOUNTS: &str = "accounts";

/// How long nothing may be told before another connection is made: what is asked of a broker just when it dies
/// may be left without an answer for ever.
const SILENCE: Duration = Duration::from_secs(15);

/// Where the tasks are.
pub(super) fn queue() -> QueueName {
    "chaos".parse().unwrap()
}

/// A broker, and the means to hurt it.
pub(super) struct Store {
    name: String,
    broker: Box<dyn Broker>,
    address: String,
    kind: Kind,
    listener: Option<JoinHandle<()>>,
}

enum Kind {
    File(TempDir),
    Nodes {
        urls: Vec<String>,
        /// And how often they were struck.
        nodes: Mutex<(Cluster, usize)>,
    },
}

impl Store {
    pub(super) fn file() -> Store {
        let folder = TempDir::new().unwrap();
        let options = SqliteOptions::new(folder.path().join("queue.db"));
        Store {
            name: "SQLite".to_owned(),
            broker: Box::new(Sqlite::open(options, printed()).unwrap()),
            address: String::new(),
            kind: Kind::File(folder),
            listener: None,
        }
    }

    pub(super) async fn nodes(mut cluster: Cluster) -> Store {
        let urls = cluster.urls();
        let broker = RabbitMq::connect(RabbitMqOptions::new(urls.clone()), printed())
            .await
            .unwrap();
        Store {
            name: format!(
                "RabbitMQ {} ({} nodes)",
                version(&urls[0]),
                cluster.nodes().len()
            ),
            broker: Box::new(broker),
            address: ACCOUNTS.to_owned(),
            kind: Kind::Nodes {
                urls,
                nodes: Mutex::new((cluster, 0)),
            },
            listener: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a worker is told with `--broker`.
    pub(super) fn url(&self) -> String {
        match &self.kind {
            Kind::File(folder) => format!("sqlite:{}", folder.path().join("queue.db").display()),
            Kind::Nodes { urls, .. } => urls.join(","),
        }
    }

    /// Begins to write every end that is told into the books.
    pub(super) async fn listen(&mut self, books: &Books) {
        let books = books.clone();
        self.listener = Some(match &self.kind {
            Kind::File(_) => {
                let mut replies = self.broker.replies().await.unwrap();
                self.address = replies.address().to_owned();
                tokio::spawn(async move {
                    while let Ok((_, reply)) = replies.next().await {
                        books.hear(reply.task, reply.kind);
                    }
                })
            }
            Kind::Nodes { urls, .. } => {
                let urls = urls.clone();
                declare_accounts(&urls).await;
                tokio::spawn(async move {
                    loop {
                        // Until the node goes; what was not acked is told again when it is back.
                        tokio::select! {
                            _ = hear_from(&urls, &books) => {}
                            () = books.silence(SILENCE) => {}
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                })
            }
        });
    }

    /// Publishes tasks; whether all were confirmed.
    pub(super) async fn publish(&self, tasks: &[(String, Fate)]) -> bool {
        let messages = tasks.iter().map(|(id, fate)| {
            let mut message = fate.message(id.clone());
            message.reply_to = Some(ReplyTo {
                address: self.address.clone(),
                correlation_id: None,
                notify: false,
            });
            message
        });
        let published = self
            .broker
            .publish(&queue(), messages.collect(), None)
            .await;
        published.is_ok()
    }

    /// Waits until a broker that is killed keeps the queues that were made last.
    pub(super) async fn settle_down(&self) {
        if let Kind::Nodes { .. } = self.kind {
            // A node that is killed right after a quorum queue was made may lose it, and tells by nothing
            // when that is over.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// Ends a node of the broker, if there is one, and starts it again: each in its turn, and by turns with
    /// SIGKILL and SIGTERM. Gives how many were ended.
    pub(super) async fn strike(&self) -> usize {
        let Kind::Nodes { nodes, .. } = &self.kind else {
            return 0;
        };
        let (cluster, strikes) = &mut *nodes.lock().await;
        let nodes = cluster.nodes();
        let turn = *strikes % nodes.len();
        let node = &mut nodes[turn];
        if *strikes % 2 == 0 {
            node.kill().await;
        } else {
            node.stop().await;
        }
        *strikes += 1;
        node.restart().await;
        1
    }

    /// Every dead letter: its task and its reason.
    pub(super) async fn letters(&self) -> Vec<(String, String)> {
        match &self.kind {
            Kind::File(folder) => {
                let letters = "SELECT task, reason FROM dead JOIN message USING (id)";
                rows(folder, letters, |row| Ok((row.get(0)?, row.get(1)?)))
            }
            Kind::Nodes { urls, .. } => {
                let letters = take_all(urls, &format!("{}.dead", queue())).await;
                let read = |letter| (task_of(letter), header(letter, "scutwork-dead-reason"));
                letters.iter().map(read).collect()
            }
        }
    }

    /// What each of the broker's queues holds, ready and unacked, in its own words.
    pub(super) async fn inventory(&self) -> String {
        match &self.kind {
            Kind::File(_) => format!("{:?}", self.broker.depth(&queue()).await),
            Kind::Nodes { nodes, .. } => {
                let (cluster, _) = &mut *nodes.lock().await;
                cluster.nodes()[0].control(&[
                    "list_queues",
                    "name",
                    "messages_ready",
                    "messages_unacknowledged",
                    "consumers",
                    "state",
                ])
            }
        }
    }

    /// Whether nothing waits or runs; tasks that run more than once do so also when all have ended.
    pub(super) async fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::File(_) => {
                let depth = self.broker.depth(&queue()).await.unwrap().unwrap();
                depth.ready + depth.running.unwrap() + depth.delayed == 0
            }
            Kind::Nodes { nodes, .. } => {
                let (cluster, _) = &mut *nodes.lock().await;
                let said = cluster.nodes()[0].control(&["eval", &are_all_empty()]);
                said.trim().parse().unwrap_or_else(|_| panic!("{said}"))
            }
        }
    }

    /// The tasks that wait on the queue when nobody serves it.
    pub(super) async fn waiting(&self) -> Vec<String> {
        match &self.kind {
            Kind::File(folder) => {
                let tasks = "SELECT task FROM message WHERE id NOT IN (SELECT id FROM dead)";
                rows(folder, tasks, |row| row.get(0))
            }
            Kind::Nodes { urls, .. } => {
                let waiting = take_all(urls, queue().as_str()).await;
                waiting.iter().map(task_of).collect()
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// A connection to the first node that takes one.
async fn open(urls: &[String]) -> lapin::Result<(Connection, Channel)> {
    let mut connected = Err(lapin::ErrorKind::ChannelsLimitReached.into());
    for url in urls {
        connected = Connection::connect(url, ConnectionProperties::default()).await;
        if connected.is_ok() {
            break;
        }
    }
    let connection = connected?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// What a node is asked, to tell whether all queues but that of the dead letters are empty. It asks the queues' own
/// logs: clients are not told what is held, and what is listed of queues is some seconds old. Each is asked twice,
/// since what leaves one for another that was asked before would be missed.
fn are_all_empty() -> String {
    let queue = queue();
    format!(
        "Members = [amqqueue:get_pid(Queue) || Queue <- rabbit_amqqueue:list(<<\"/\">>), \
             amqqueue:get_type(Queue) =:= rabbit_quorum_queue, \
             {{resource, _, queue, Name}} <- [amqqueue:get_name(Queue)], \
             string:prefix(Name, <<\"{queue}\">>) =/= nomatch, Name =/= <<\"{queue}.dead\">>], \
         Count = fun(State) -> maps:get(num_messages, rabbit_fifo:overview(State)) end, \
         Members =/= [] andalso lists:all(fun(Member) -> {{ok, Sum, _}} = ra:consistent_query(Member, Count, 30000), Sum =:= 0 end, \
             Members ++ Members)."
    )
}

/// Every message that nobody has taken from a queue. They stay there.
async fn take_all(urls: &[String], queue: &str) -> Vec<BasicProperties> {
    let (_connection, channel) = open(urls).await.unwrap();
    let take = || channel.basic_get(queue.into(), BasicGetOptions { no_ack: false });
    let mut taken = Vec::new();
    // Left unacked, so that each comes once; they go back with the connection.
    while let Some(message) = take().await.unwrap() {
        taken.push(message.delivery.properties);
    }
    taken
}

/// What a question to the queue's file gives.
fn rows<T>(
    folder: &TempDir,
    question: &str,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let file = rusqlite::Connection::open(folder.path().join("queue.db")).unwrap();
    let mut question = file.prepare(question).unwrap();
    let rows = question.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}

fn task_of(properties: &BasicProperties) -> String {
    let id = properties.message_id().as_ref();
    id.expect("a task has an id").to_string()
}

async fn declare_accounts(urls: &[String]) {
    let (_connection, channel) = open(urls).await.unwrap();
    let mut quorum = FieldTable::default();
    quorum.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(ACCOUNTS.into(), durable, quorum)
        .await
        .unwrap();
}

/// Writes the ends that the broker tells of into the books, until it goes.
async fn hear_from(urls: &[String], books: &Books) -> lapin::Result<()> {
    let (_connection, channel) = open(urls).await?;
    let options = BasicConsumeOptions::default();
    let consuming =
        channel.basic_consume(ACCOUNTS.into(), "".into(), options, FieldTable::default());
    let mut ends = consuming.await?;
    while let Some(end) = ends.next().await {
        let end = end?;
        let kind = ReplyKind::from_word(&header(&end.properties, "scutwork-outcome"));
        books.hear(header(&end.properties, "scutwork-task"), kind);
        end.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn header(properties: &BasicProperties, name: &str) -> String {
    let headers = properties.headers().as_ref().unwrap();
    match &headers.inner()[name] {
        AMQPValue::LongString(text) => text.to_string(),
        other => panic!("{name} is {other:?}"),
    }
}
