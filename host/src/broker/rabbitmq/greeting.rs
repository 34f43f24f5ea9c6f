//! [`Greeting`]: what a broker says of itself before anybody logs in. The client library keeps none of it,
//! so it is asked for once more, on a connection of its own that ends with the first frame.

use std::io::{self, Read, Write};
use std::net::{TcpStream as Socket, ToSocketAddrs};
use std::time::Duration;

use lapin::tcp::{OwnedTLSConfig, TcpStream};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};

use super::RabbitMqOptions;
use super::address::Address;

/// How long the broker may take for each step.
const STEP: Duration = Duration::from_secs(5);

/// The most that a greeting takes; RabbitMQ's has some hundred bytes.
const LONGEST: u32 = 64 << 10;

/// What a client says first: AMQP 0-9-1.
const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// Which server this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `RabbitMQ`, as a rule.
    pub product: String,
    /// Such as `3.10.8`.
    pub version: String,
}

impl Greeting {
    /// Asks the first broker that answers. Blocks, for some seconds at most for each address.
    ///
    /// # Errors
    /// When none answers, or the URLs cannot be read.
    pub fn of(options: &RabbitMqOptions) -> io::Result<Greeting> {
        let addresses = options.addresses().map_err(io::Error::other)?;
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "there is no address");
        for address in &addresses {
            match Greeting::ask(address, options.authorities.clone()) {
                Ok(greeting) => return Ok(greeting),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Asks for it. Blocks, for some seconds at most for each address of the host.
    pub(super) fn ask(address: &Address, authorities: Option<String>) -> io::Result<Greeting> {
        let uri = address.uri();
        let host = uri.authority.host.as_str();
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for target in (host, uri.authority.port).to_socket_addrs()? {
            match Socket::connect_timeout(&target, STEP) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(STEP))?;
                    socket.set_write_timeout(Some(STEP))?;
                    let mut stream = TcpStream::from_std(socket)?;
                    if address.is_encrypted() {
                        let config = OwnedTLSConfig {
                            identity: None,
                            cert_chain: authorities,
                        };
                        stream = stream
                            .into_tls(host, config.as_ref())
                            .map_err(|error| io::Error::other(error.to_string()))?;
                    }
                    return read(&mut stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn read(stream: &mut (impl Read + Write)) -> io::Result<Greeting> {
    stream.write_all(HEADER)?;
    stream.flush()?;
    // A frame's type, its channel, and the size of what follows.
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let [1, 0, 0, size @ ..] = head else {
        return Err(unexpected());
    };
    let size = u32::from_be_bytes(size);
    if size > LONGEST {
        return Err(unexpected());
    }
    let mut payload = vec![0; size as usize];
    stream.read_exact(&mut payload)?;
    // Class and method of connection.start, and the protocol's two version numbers.
    let Some(properties) = payload.strip_prefix(&[0, 10, 0, 10, 0, 9]) else {
        return Err(unexpected());
    };
    let (_, properties) = parse_field_table(properties).map_err(|_| unexpected())?;
    Ok(Greeting {
        product: text(&properties, "product"),
        version: text(&properties, "version"),
    })
}

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        // The others are no text.
        Some(_) | None => String::new(),
    }
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "that is no greeting of AMQP 0-9-1",
    )
}
