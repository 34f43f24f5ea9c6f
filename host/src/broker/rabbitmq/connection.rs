//! [`Connector`] opens connections, and a [`Link`] is one that cannot be left behind: each wait has an
//! end, and its socket is shut when it is given up. What goes wrong is told in one sentence.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::time::timeout;

use super::RabbitMqOptions;
use super::address::Address;
use super::inlet::{self, Inlet};
use super::pace::Pace;
use crate::broker::BrokerError;

/// How long one address may take to answer, TLS and login included.
const CONNECT: Duration = Duration::from_secs(10);
/// How often to ask whether a broker is back, at most.
const PROBE: Duration = Duration::from_secs(1);
/// How long the broker may take to answer anything else that it is asked.
const ANSWER: Duration = Duration::from_secs(20);
/// How long the broker may take to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);

/// Opens connections to whichever of several brokers answers.
pub(super) struct Connector {
    pub(super) addresses: Vec<Address>,
    pub(super) authorities: Option<String>,
    pub(super) name: String,
}

/// What a broker says between messages.
pub(super) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// An open connection. Dropping it shuts the socket, whatever still refers to its channels.
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
}

/// A second handle on a connection's socket, with which to end the connection from outside.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

/// AMQP's reply code for what this user may not do.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP's reply code for what is not there.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP's reply code for what belongs to another connection.
pub(super) const LOCKED: u16 = 405;

/// Why the broker did not do what it was asked.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The broker's reply code, where it gave one.
    pub(super) code: Option<u16>,
    /// What happened, for a person.
    pub(super) text: String,
}

impl Connector {
    /// What connects as these options say.
    ///
    /// # Errors
    /// `Refused` for a URL that cannot be read.
    pub(super) fn new(options: &RabbitMqOptions) -> Result<Arc<Connector>, BrokerError> {
        let addresses = options
            .addresses()
            .map_err(|why| BrokerError::Refused(anyhow!(why)))?;
        Ok(Arc::new(Connector {
            addresses,
            authorities: options.authorities.clone(),
            name: options.connection_name.clone(),
        }))
    }

    /// Connects to the first address that takes us.
    ///
    /// # Errors
    /// `Refused` when each address said no, else `Unavailable`; with every address's answer.
    pub(super) async fn open(&self, purpose: &str) -> Result<(Link, Events), BrokerError> {
        let mut refused = true;
        let mut answers = Vec::new();
        for address in &self.addresses {
            match self.open_one(address, purpose).await {
                Ok(opened) => return Ok(opened),
                Err(BrokerError::Refused(why)) => answers.push(why.to_string()),
                Err(BrokerError::Unavailable(why)) => {
                    refused = false;
                    answers.push(why.to_string());
                }
            }
        }
        let all = anyhow!(answers.join("; "));
        Err(if refused {
            BrokerError::Refused(all)
        } else {
            BrokerError::Unavailable(all)
        })
    }

    /// Waits before the next try to connect: this long, or until an address takes connections at which
    /// nobody listened before. To ask that costs next to nothing and is done about every second, so that
    /// a broker that is back is not left waiting. The pace begins anew then: a broker that has just started
    /// may refuse what it will take in a moment, and how long it was away says nothing of that.
    pub(super) async fn wait(&self, wait: Duration, pace: &mut Pace) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.is_back() => *pace = Pace::new(),
        }
    }

    async fn is_back(&self) {
        let mut was_gone = false;
        loop {
            let asked = self.addresses.iter().map(Address::takes_connections);
            let is_here = FuturesUnordered::from_iter(asked)
                .any(std::future::ready)
                .await;
            match (is_here, was_gone) {
                (true, true) => return,
                // Something else is wrong with it.
                (true, false) => std::future::pending().await,
                (false, _) => was_gone = true,
            }
            // Not all workers in the same moment.
            tokio::time::sleep(PROBE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn open_one(
        &self,
        address: &Address,
        purpose: &str,
    ) -> Result<(Link, Events), BrokerError> {
        let socket = Socket::default();
        let kept = socket.clone();
        let authorities = self.authorities.clone();
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("{} {purpose}", self.name).into());
        let runtime = lapin::runtime::default_runtime()
            .map_err(|error| BrokerError::Unavailable(anyhow!(error)))?;
        let opening = Connection::connector(
            address.uri(),
            inlet::runtime(),
            async move |uri: AMQPUri, _| {
                // In here too, because dropping the outer wait does not end the thread this runs on.
                timeout(CONNECT, async {
                    let mut plain = uri.clone();
                    plain.scheme = AMQPScheme::AMQP;
                    let stream = plain
                        .connect_with_config_async(TLSConfig::default(), &runtime)
                        .await?;
                    if let AsyncTcpStream::Plain(tcp) = &stream {
                        kept.keep(tcp.get_ref().as_fd().try_clone_to_owned()?.into());
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => {
                            let config = OwnedTLSConfig {
                                identity: None,
                                cert_chain: authorities.clone(),
                            };
                            stream.into_tls(&uri.authority.host, config.as_ref()).await
                        }
                    }
                })
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map(|stream| AsyncTcpStream::Plain(Inlet::new(stream)))
                .map_err(lapin::Error::from)
            },
            properties,
        );
        match timeout(CONNECT, opening).await {
            Ok(Ok(connection)) => {
                let events: Events = Box::pin(connection.events_listener());
                Ok((Link { connection, socket }, events))
            }
            Ok(Err(error)) => {
                socket.shut();
                Err(explain(address, &error))
            }
            Err(_) => {
                socket.shut();
                Err(BrokerError::Unavailable(anyhow!(
                    "no answer from {address} within {}; check that RabbitMQ listens there",
                    crate::units::show_duration(CONNECT)
                )))
            }
        }
    }
}

/// How many numbers of channels with a past are tried before that is taken for trouble.
const STALE_ANSWERS: u32 = 16;

/// Whether a reply code is one of AMQP's soft errors, which end a channel and not its connection.
fn ends_channels_only(code: u16) -> bool {
    matches!(code, 311 | 313 | 403..=406)
}

impl Link {
    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, Trouble> {
        let mut last = None;
        for _ in 0..STALE_ANSWERS {
            match answer(self.connection.create_channel()).await {
                Ok(channel) => return Ok(channel),
                // No broker says this to the opening of a channel. It is what ended an earlier channel
                // of the same number, which the client library tells a second time.
                Err(trouble) if trouble.code.is_some_and(ends_channels_only) => {
                    last = Some(trouble)
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Err(last.expect("there is at least one try"))
    }

    /// Says goodbye, so that the broker's log shows no lost connection.
    pub(super) async fn close(&self) {
        // Nothing depends on the answers; the socket is shut when `self` goes.
        let _ = timeout(GOODBYE, async {
            // The client library closes channels that were dropped by itself, in their turn. If that meets a
            // connection that is being closed, the library takes it for an error and breaks the connection.
            if let Ok(last) = self.channel().await {
                let _ = last.close(200, "goodbye".into()).await;
            }
            self.connection.close(200, "goodbye".into()).await
        })
        .await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.shut();
    }
}

impl Socket {
    fn keep(&self, socket: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    fn shut(&self) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = socket.take() {
            // An error means that it is shut already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Waits until the connection is over, and says why. `blocked` hears of alarms meanwhile.
pub(super) async fn over(events: &mut Events, mut blocked: impl FnMut(Option<String>)) -> String {
    loop {
        match events.next().await {
            None => return "the connection ended".to_owned(),
            // The end of one channel, of which its user hears; a question answered with no is one.
            Some(Event::Error(error)) if error.is_amqp_soft_error() => {}
            Some(Event::Error(error)) => return Trouble::from(error).text,
            Some(Event::ConnectionBlocked(why)) => blocked(Some(why)),
            Some(Event::ConnectionUnblocked) => blocked(None),
            // `Event` grows without notice; what is left says nothing of the connection's end.
            Some(_) => {}
        }
    }
}

/// Waits for the broker's answer, but not for ever.
pub(super) async fn answer<T>(
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Trouble> {
    answer_within(ANSWER, question).await
}

/// [`answer`], with a patience of its own.
pub(super) async fn answer_within<T>(
    patience: Duration,
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Trouble> {
    match timeout(patience, question).await {
        Ok(answer) => answer.map_err(Trouble::from),
        Err(_) => Err(Trouble {
            code: None,
            text: format!(
                "the broker gave no answer within {}",
                crate::units::show_duration(patience)
            ),
        }),
    }
}

impl From<lapin::Error> for Trouble {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(protocol) => Trouble {
                code: Some(protocol.get_id()),
                text: format!(
                    "the broker said {} {}",
                    protocol.get_id(),
                    protocol.get_message()
                ),
            },
            ErrorKind::MissingHeartbeatError => Trouble {
                code: None,
                text: "the broker stopped answering".to_owned(),
            },
            ErrorKind::IOError(error) => Trouble {
                code: None,
                text: format!("the connection broke ({error})"),
            },
            _ => Trouble {
                code: None,
                text: format!("the connection broke ({error})"),
            },
        }
    }
}

impl Trouble {
    /// The same, with the right that is missing, where one is: the broker says so without its name
    /// before version 4.
    pub(super) fn lacking(mut self, right: &str, name: &str) -> Self {
        if self.code == Some(403) {
            self.text = format!(
                "the user may not {right} `{name}` ({}); scutwork doctor says what to grant",
                self.text
            );
        }
        self
    }

    /// The same, with what was being done; `Refused` where trying again does not help.
    pub(super) fn while_doing(self, what: &str) -> BrokerError {
        let told = anyhow!("{what}: {}", self.text);
        match self.code {
            // Access refused, no such virtual host or not allowed, locked, other arguments.
            Some(ACCESS_REFUSED | LOCKED | 406 | 530 | 540) => BrokerError::Refused(told),
            _ => BrokerError::Unavailable(told),
        }
    }
}

/// Says why a broker did not take us, and what to do.
fn explain(address: &Address, error: &lapin::Error) -> BrokerError {
    let unavailable = |text: String| BrokerError::Unavailable(anyhow!(text));
    let refused = |text: String| BrokerError::Refused(anyhow!(text));
    match error.kind() {
        ErrorKind::ProtocolError(protocol) => {
            let said = protocol.get_message().as_str();
            match protocol.get_id() {
                403 if !said.contains("vhost") => refused(format!(
                    "{address} refused user `{}`; check the user name and the password",
                    address.user()
                )),
                // Both codes are in use, from version to version and from case to case.
                403 | 530 if said.contains("not found") => refused(format!(
                    "{address} has no virtual host `{}`; create it or change the path of the broker URL",
                    address.vhost()
                )),
                403 | 530 => refused(format!(
                    "{address} refused user `{}` the virtual host `{}` ({said}); grant it with rabbitmqctl set_permissions",
                    address.user(),
                    address.vhost()
                )),
                _ => unavailable(format!("{address} ended the connection: {said}")),
            }
        }
        ErrorKind::IOError(error) => explain_io(address, error),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => refused(format!(
            "{address} does not speak AMQP 0-9-1; check the port"
        )),
        _ => unavailable(format!("cannot connect to {address}: {error}")),
    }
}

fn explain_io(address: &Address, error: &io::Error) -> BrokerError {
    let text = error.to_string();
    if address.is_encrypted() && (text.contains("certificate") || text.contains("TLS")) {
        return BrokerError::Refused(anyhow!(
            "cannot trust {address}: {text}; check the host name and the CA certificate"
        ));
    }
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there; start RabbitMQ or correct the broker URL"
        }
        io::ErrorKind::TimedOut => "no answer in time; check the host, the port and firewalls",
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
            "it hung up before the login was done; check that the port speaks AMQP, and amqps where it wants TLS"
        }
        _ if text.contains("lookup") || text.contains("resolve") => {
            "the host name is not known; correct the broker URL"
        }
        _ => "check the broker URL and the network",
    };
    BrokerError::Unavailable(anyhow!("cannot connect to {address}: {text}; {advice}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whoever_listens_again_is_tried_at_once_and_at_the_pace_of_a_beginning() {
        let address = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap()
        };
        let options = RabbitMqOptions::new(vec![format!("amqp://{address}")]);
        let connector = Connector::new(&options).unwrap();
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..20).map(|_| pace.wait()).collect();
        // It comes and goes, so that it is seen gone and then seen back, whenever somebody looks first.
        let coming_and_going = async {
            loop {
                tokio::time::sleep(PROBE).await;
                let _here = TcpListener::bind(address).await;
                tokio::time::sleep(2 * PROBE).await;
            }
        };
        tokio::select! {
            () = connector.wait(Duration::MAX, &mut pace) => {}
            () = coming_and_going => unreachable!(),
        }
        assert_eq!(pace.wait(), waits[0]);
        assert_ne!(waits[19], waits[0]);
    }
}
