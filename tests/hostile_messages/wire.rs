//! [`Wire`]: an AMQP client that sends whatever bytes it is given, so that a test can publish what no
//! library would write.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;

/// The most that a body's frame holds.
const CHUNK: usize = 131_072 - 8;

/// A connection with one channel, on which every message is confirmed.
pub(super) struct Wire {
    socket: TcpStream,
}

/// Properties as bytes, from their flags on.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties {
    flags: u16,
    /// At the place of their bit, counted from the highest.
    fields: [Vec<u8>; 14],
}

/// The broker ended the connection or the channel over what it was sent.
#[derive(Debug)]
pub(super) struct Refused;

impl Wire {
    pub(super) fn open(url: &str) -> Wire {
        let address = url.rsplit(['/', '@']).next().unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut wire = Wire { socket };
        wire.socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
        wire.hear(10, 10).unwrap();
        let login = long(b"\0guest\0guest");
        let start_ok = [&long(b"")[..], &short(b"PLAIN"), &login, &short(b"C")].concat();
        wire.say(0, 10, 11, &start_ok);
        let tune = wire.hear(10, 30).unwrap();
        // The same channels and frame size, and no heartbeat.
        wire.say(0, 10, 31, &[&tune[4..10], &[0, 0]].concat());
        wire.say(0, 10, 40, &[&short(b"/")[..], &[0, 0]].concat());
        wire.hear(10, 41).unwrap();
        wire.say(1, 20, 10, &[0]);
        wire.hear(20, 11).unwrap();
        wire.say(1, 85, 10, &[0]);
        wire.hear(85, 11).unwrap();
        wire
    }

    /// Publishes to a queue, and returns once that is confirmed.
    pub(super) fn publish(
        &mut self,
        queue: &str,
        properties: &Properties,
        body: &[u8],
    ) -> Result<(), Refused> {
        self.publish_to("", queue.as_bytes(), properties, body)
    }

    pub(super) fn publish_to(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &Properties,
        body: &[u8],
    ) -> Result<(), Refused> {
        let target = [&short(exchange.as_bytes())[..], &short(routing_key), &[0]].concat();
        let method = [&[0, 60, 0, 40, 0, 0], &target[..]].concat();
        let size = u64::try_from(body.len()).unwrap().to_be_bytes();
        let header = [&[0, 60, 0, 0], &size[..], &properties.bytes()].concat();
        let mut all = frame(METHOD, 1, &method);
        all.extend(frame(HEADER, 1, &header));
        for chunk in body.chunks(CHUNK) {
            all.extend(frame(BODY, 1, chunk));
        }
        // A broker that refuses may have hung up by now, and hearing tells.
        let _ = self.socket.write_all(&all);
        self.hear(60, 80).map(|_| ())
    }

    /// Declares a fanout exchange with a queue bound to it by whatever key.
    pub(super) fn bind(&mut self, exchange: &str, queue: &str) {
        let names = [&[0, 0], &short(exchange.as_bytes())[..], &short(b"fanout")].concat();
        self.say(
            1,
            40,
            10,
            &[&names[..], &[0b0000_0100], &long(b"")].concat(),
        );
        self.hear(40, 11).unwrap();
        let names = [&short(queue.as_bytes())[..], &short(exchange.as_bytes())].concat();
        self.say(
            1,
            50,
            20,
            &[&[0, 0], &names[..], &short(b""), &[0], &long(b"")].concat(),
        );
        self.hear(50, 21).unwrap();
    }

    fn say(&mut self, channel: u8, class: u8, method: u8, arguments: &[u8]) {
        let payload = [&[0, class, 0, method], arguments].concat();
        self.socket
            .write_all(&frame(METHOD, channel, &payload))
            .unwrap();
    }

    /// Waits for a method, and gives it with its class and number.
    fn hear(&mut self, class: u8, method: u8) -> Result<Vec<u8>, Refused> {
        loop {
            let mut head = [0; 7];
            self.socket.read_exact(&mut head).map_err(|_| Refused)?;
            let size = u32::from_be_bytes(head[3..].try_into().unwrap());
            let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
            self.socket.read_exact(&mut payload).map_err(|_| Refused)?;
            if head[0] != METHOD {
                continue;
            }
            let close = [[0, 10, 0, 50], [0, 20, 0, 40]];
            match &payload[..4] {
                heard if heard == [0, class, 0, method] => return Ok(payload),
                heard if close.iter().any(|close| heard == close) => return Err(Refused),
                // basic.nack
                [0, 60, 0, 120] => return Err(Refused),
                other => panic!("{other:?} came while {class}.{method} was waited for"),
            }
        }
    }
}

impl Properties {
    pub(super) fn headers(entries: &[u8]) -> Self {
        Properties::default().with_headers(entries)
    }

    pub(super) fn with_headers(self, entries: &[u8]) -> Self {
        self.with(2, long(entries))
    }

    pub(super) fn kind(text: impl AsRef<[u8]>) -> Self {
        Properties::default().with_text(10, text)
    }

    /// The property at this place in their order, from 0.
    pub(super) fn with_text(self, place: usize, text: impl AsRef<[u8]>) -> Self {
        self.with(place, short(text.as_ref()))
    }

    pub(super) fn with(mut self, place: usize, bytes: Vec<u8>) -> Self {
        self.flags |= 1 << 15 >> place;
        self.fields[place] = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_be_bytes().to_vec();
        bytes.extend(self.fields.concat());
        bytes
    }
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, channel], &long(payload)[..], &[END]].concat()
}

/// A text of up to 255 bytes; what is over is cut.
pub(super) fn short(text: &[u8]) -> Vec<u8> {
    let text = &text[..text.len().min(255)];
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// Bytes with their length before them.
pub(super) fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

/// A header: its name, its type's letter, and its value as bytes.
pub(super) fn entry(name: impl AsRef<[u8]>, kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name.as_ref())[..], &[kind], value].concat()
}

pub(super) fn text_entry(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    entry(name, b'S', &long(value.as_ref()))
}
