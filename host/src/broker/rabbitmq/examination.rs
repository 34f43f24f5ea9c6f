//! [`Examination`]: what can be found out about a RabbitMQ and our queues on it without changing anything.
//!
//! Rights are tried out by requests that the broker refuses in any case, but only after it has looked
//! at the right: a declaration and a subscription with an argument that no broker takes, and the end
//! of a binding that nobody made. Its answer tells whether the right was there.

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use uuid::Uuid;

use super::address::Address;
use super::connection::{ACCESS_REFUSED, Connector, Link, Trouble, answer};
use super::greeting::Greeting;
use super::{RabbitMqOptions, SettlementMode, delay, pause, topology};
use crate::broker::BrokerError;
use crate::name::QueueName;

/// The exchange that everything is published to, as permissions call it.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// What was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The broker's URLs, without passwords.
    pub name: String,
    /// Who we are there.
    pub user: String,
    /// Where our queues are.
    pub vhost: String,
    /// Which server it is. The error is a sentence.
    pub greeting: Result<Greeting, String>,
    /// The queues that were asked about, each with the one for its dead letters behind it.
    pub queues: Vec<(String, QueueState)>,
    /// The rights that a worker needs and this user does not have.
    pub denied: Vec<Denied>,
}

/// A queue beside what we would have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// There is none yet.
    Absent,
    /// There is one, on a node that is down.
    Down,
    /// As we would make it.
    AsWanted,
    /// It has another value of this argument, and maybe of more; then the broker's own words.
    Differs(String, String),
    /// It could not be looked at; the broker's words.
    Unseen(String),
}

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which.
    pub right: Right,
    /// On what.
    pub name: String,
}

/// RabbitMQ's three kinds of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To make it.
    Configure,
    /// To put something there.
    Write,
    /// To take something from there.
    Read,
}

impl Right {
    /// RabbitMQ's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Configure => "configure",
            Right::Write => "write",
            Right::Read => "read",
        }
    }
}

impl Examination {
    /// Examines the broker and these queues.
    ///
    /// # Errors
    /// When no broker can be used at all; see [`super::RabbitMq::connect`].
    pub async fn of(options: RabbitMqOptions, queues: &[QueueName]) -> Result<Self, BrokerError> {
        let connector = Connector::new(&options)?;
        let (link, _events) = connector.open("examining").await?;
        let examined = look(&link, queues, options.settlement).await;
        let (queues, denied) =
            examined.map_err(|trouble| trouble.while_doing("cannot examine the broker"))?;
        link.close().await;
        let shown = connector.addresses.iter().map(Address::to_string);
        let first = connector.addresses.first();
        Ok(Examination {
            name: shown.collect::<Vec<_>>().join(","),
            user: first
                .map(|address| address.user().to_owned())
                .unwrap_or_default(),
            vhost: first
                .map(|address| address.vhost().to_owned())
                .unwrap_or_default(),
            greeting: greeting(&connector, options.authorities).await,
            queues,
            denied,
        })
    }
}

/// The first greeting of any node.
async fn greeting(connector: &Connector, authorities: Option<String>) -> Result<Greeting, String> {
    let addresses = connector.addresses.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut failures = Vec::new();
        for address in &addresses {
            match Greeting::ask(address, authorities.clone()) {
                Ok(greeting) => return Ok(greeting),
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        Err(failures.join("; "))
    });
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn look(
    link: &Link,
    queues: &[QueueName],
    mode: SettlementMode,
) -> Result<(Vec<(String, QueueState)>, Vec<Denied>), Trouble> {
    let mut states = Vec::new();
    let mut denied = Vec::new();
    if !is_granted(link, Right::Write, DEFAULT_EXCHANGE).await? {
        denied.push(Denied {
            right: Right::Write,
            name: DEFAULT_EXCHANGE.to_owned(),
        });
    }
    for queue in queues {
        for (name, rights) in needed(link, queue, mode).await? {
            for right in rights {
                if !is_granted(link, *right, &name).await? {
                    denied.push(Denied {
                        right: *right,
                        name: name.clone(),
                    });
                }
            }
        }
        let found = state(link, queue.as_str(), topology::quorum()).await?;
        states.push((queue.to_string(), found));
        if mode == SettlementMode::Standard {
            let dead = topology::dead_name(queue);
            let found = state(link, &dead, topology::patient()).await?;
            states.push((dead, found));
        }
    }
    Ok((states, denied))
}

/// The rights that a worker on this queue needs, and an operator who looks after it.
async fn needed(
    link: &Link,
    queue: &QueueName,
    mode: SettlementMode,
) -> Result<Vec<(String, &'static [Right])>, Trouble> {
    use Right::{Configure, Read};
    let names = match mode {
        SettlementMode::Standard => vec![
            queue.to_string(),
            topology::dead_name(queue),
            topology::suspects_name(queue),
            pause::mark_name(queue),
        ],
        SettlementMode::Native => vec![queue.to_string(), pause::mark_name(queue)],
    };
    let mut needed: Vec<(String, &'static [Right])> = Vec::new();
    for name in names {
        // What is there is taken as it is, and nobody needs to make it.
        let exists = !matches!(topology::count(link, &name).await, Ok(None));
        needed.push((name, if exists { &[Read] } else { &[Configure, Read] }));
    }
    if mode == SettlementMode::Standard {
        // The lowest and the highest stand for all between them.
        for level in [0, delay::LEVELS - 1] {
            needed.push((delay::level_name(queue, level), &[Configure, Read]));
        }
    }
    Ok(needed)
}

/// Whether the broker grants a right on this name. It knows rights by names alone, whatever bears them; all
/// that is published goes by the one exchange.
async fn is_granted(link: &Link, right: Right, name: &str) -> Result<bool, Trouble> {
    let channel = link.channel().await?;
    let tried = match right {
        Right::Configure => try_to_declare(&channel, name).await,
        Right::Write => try_to_publish(&channel).await,
        Right::Read => try_to_consume(&channel, name).await,
    };
    match tried {
        Err(trouble) if trouble.code == Some(ACCESS_REFUSED) => Ok(false),
        Err(trouble) if trouble.code.is_none() => Err(trouble),
        Err(_) | Ok(()) => Ok(true),
    }
}

/// No queue has a negative time to live, so this neither makes one nor is the same as one.
async fn try_to_declare(channel: &Channel, name: &str) -> Result<(), Trouble> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(-1));
    topology::declare(channel, name, arguments).await
}

/// A priority is a number, so no message is ever sent for this.
async fn try_to_consume(channel: &Channel, name: &str) -> Result<(), Trouble> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let consumed = channel.basic_consume(
        name.into(),
        "".into(),
        BasicConsumeOptions::default(),
        arguments,
    );
    answer(consumed).await.map(drop)
}

/// Publishes what nobody gets.
async fn try_to_publish(channel: &Channel) -> Result<(), Trouble> {
    answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let nobody = format!("scutwork-doctor-{}", Uuid::now_v7());
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    answer(async {
        channel
            .basic_publish(
                "".into(),
                nobody.as_str().into(),
                options,
                b"",
                BasicProperties::default(),
            )
            .await?
            .await
    })
    .await
    .map(drop)
}

/// What a queue is. One that is there is declared as we would make it, which changes nothing.
async fn state(link: &Link, queue: &str, wanted: FieldTable) -> Result<QueueState, Trouble> {
    match topology::count(link, queue).await {
        Ok(None) => {
            return match topology::is_known(link, queue).await {
                Ok(true) => Ok(QueueState::Down),
                Ok(false) => Ok(QueueState::Absent),
                Err(trouble) if trouble.code.is_some() => Ok(QueueState::Unseen(trouble.text)),
                Err(trouble) => Err(trouble),
            };
        }
        Ok(Some(_)) => {}
        Err(trouble) if trouble.code.is_some() => return Ok(QueueState::Unseen(trouble.text)),
        Err(trouble) => return Err(trouble),
    }
    let channel = link.channel().await?;
    let declared = topology::declare(&channel, queue, wanted).await;
    Ok(match declared {
        Ok(()) => QueueState::AsWanted,
        Err(trouble) if trouble.code.is_none() => return Err(trouble),
        Err(trouble) => match argument(&trouble.text) {
            Some(argument) => QueueState::Differs(argument.to_owned(), trouble.text),
            None => QueueState::Unseen(trouble.text),
        },
    })
}

/// The argument that the broker names: `inequivalent arg 'x-queue-type' for queue ...`.
fn argument(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("inequivalent arg '")?;
    rest.split_once('\'').map(|(argument, _)| argument)
}
