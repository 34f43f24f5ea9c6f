//! [`Network`]: the way between a worker and a RabbitMQ node, which a test can cut without closing a
//! connection, and into which it can put a word of the broker's.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// A port that leads to a node. Its connections end when it is dropped.
pub(crate) struct Network {
    port: u16,
    shared: Arc<Shared>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker,
    FromBroker,
}

#[derive(Default)]
struct Shared {
    cuts: Mutex<Cuts>,
    healed: Condvar,
    pipes: Mutex<Vec<Pipe>>,
    frames_to_broker: AtomicU64,
    ends: Mutex<Ends>,
    ended: Condvar,
    crashes: Mutex<Option<Crashes>>,
    withheld: Mutex<Option<Vec<Withheld>>>,
}

/// What the broker said to a client that has not heard it.
struct Withheld {
    client: Arc<Mutex<TcpStream>>,
    frame: Vec<u8>,
}

/// A queue at which the broker fails so many times more.
struct Crashes {
    queue: String,
    left: u32,
}

/// How connections have ended.
#[derive(Default)]
struct Ends {
    open: u64,
    /// Clients that did not wait for the broker's goodbye.
    abrupt: u64,
}

#[derive(Default)]
struct Cuts {
    to_broker: bool,
    from_broker: bool,
    /// Connections on which nothing reaches the broker.
    stuck: BTreeSet<usize>,
    /// No new connection is let through.
    is_closed: bool,
    is_over: bool,
}

/// One connection.
struct Pipe {
    client: TcpStream,
    broker: TcpStream,
    /// Locked while a whole frame is written to the client.
    frames: Arc<Mutex<TcpStream>>,
    consumer: Arc<Mutex<Option<Subscription>>>,
}

/// The latest subscription of a connection.
struct Subscription {
    channel: u16,
    tag: Vec<u8>,
}

impl Network {
    /// A network to where an `amqp://` URL leads.
    pub(crate) fn to(url: &str) -> Network {
        let target = url.rsplit(['/', '@']).next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (is_over, is_closed) = {
                    let cuts = accepting.cuts.lock().unwrap();
                    (cuts.is_over, cuts.is_closed)
                };
                if is_over {
                    return;
                }
                if is_closed {
                    continue;
                }
                // A node that is down is a connection that ends.
                if let (Ok(client), Ok(broker)) = (client, TcpStream::connect(&target)) {
                    carry(&accepting, client, broker);
                }
            }
        });
        Network { port, shared }
    }

    /// How to reach the node over it, with more for the URL.
    pub(crate) fn url(&self, more: &str) -> String {
        format!("amqp://127.0.0.1:{}{more}", self.port)
    }

    /// Lets nothing through any more this way, on connections that are open and on new ones. What is sent
    /// waits.
    pub(crate) fn cut(&self, way: Way) {
        let mut cuts = self.shared.cuts.lock().unwrap();
        match way {
            Way::ToBroker => cuts.to_broker = true,
            Way::FromBroker => cuts.from_broker = true,
        }
    }

    /// Lets everything through again, and what has waited first.
    pub(crate) fn heal(&self) {
        let mut cuts = self.shared.cuts.lock().unwrap();
        (cuts.to_broker, cuts.from_broker) = (false, false);
        self.shared.healed.notify_all();
    }

    /// Lets nothing reach the broker any more on one connection, until it is torn.
    pub(crate) fn keep_back(&self, number: usize) {
        self.shared.cuts.lock().unwrap().stuck.insert(number);
    }

    /// How many frames clients have sent to the broker in all.
    pub(crate) fn frames_to_broker(&self) -> u64 {
        self.shared.frames_to_broker.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open, and gives how many clients ended without waiting for the broker's
    /// goodbye.
    pub(crate) fn ended_abruptly(&self) -> u64 {
        let ends = self.shared.ends.lock().unwrap();
        let ended = self.shared.ended.wait_while(ends, |ends| ends.open > 0);
        ended.unwrap().abrupt
    }

    /// Breaks every connection.
    pub(crate) fn tear(&self) {
        let count = self.shared.pipes.lock().unwrap().len();
        for number in 0..count {
            self.tear_one(number);
        }
    }

    /// Breaks one connection, counted from 0 in the order in which they were made.
    pub(crate) fn tear_one(&self, number: usize) {
        let pipes = self.shared.pipes.lock().unwrap();
        let pipe = &pipes[number];
        end(&pipe.client, &pipe.broker);
        *pipe.consumer.lock().unwrap() = None;
        self.shared.cuts.lock().unwrap().stuck.remove(&number);
        self.shared.healed.notify_all();
    }

    /// Breaks every connection and lets no new one through.
    pub(crate) fn close(&self) {
        self.shared.cuts.lock().unwrap().is_closed = true;
        self.tear();
    }

    /// Lets new connections through again.
    pub(crate) fn open(&self) {
        self.shared.cuts.lock().unwrap().is_closed = false;
    }

    /// Has the broker fail at the next messages to a queue, as it does when the queue's process dies: they
    /// reach nobody, and the connection that they came by is ended with an internal error.
    pub(crate) fn crash_at(&self, queue: &str, times: u32) {
        *self.shared.crashes.lock().unwrap() = Some(Crashes {
            queue: queue.to_owned(),
            left: times,
        });
    }

    /// How many of these messages have not come yet.
    pub(crate) fn crashes_left(&self) -> u32 {
        let crashes = self.shared.crashes.lock().unwrap();
        crashes.as_ref().map_or(0, |crashes| crashes.left)
    }

    /// Has no client hear that a subscription has ended which it wanted to end.
    pub(crate) fn withhold_ends(&self) {
        *self.shared.withheld.lock().unwrap() = Some(Vec::new());
    }

    /// Lets clients hear that again, and first what they have not heard. Gives how much that was.
    pub(crate) fn tell_ends(&self) -> usize {
        let withheld = self.shared.withheld.lock().unwrap().take();
        let withheld = withheld.unwrap_or_default();
        for Withheld { client, frame } in &withheld {
            client.lock().unwrap().write_all(frame).unwrap();
        }
        withheld.len()
    }

    /// Tells every client that its subscription is cancelled, as the broker would.
    pub(crate) fn cancel_consumers(&self) {
        for pipe in self.shared.pipes.lock().unwrap().iter() {
            if let Some(Subscription { channel, tag }) = pipe.consumer.lock().unwrap().take() {
                let mut cancel = vec![0, 60, 0, 30, u8::try_from(tag.len()).unwrap()];
                cancel.extend(tag);
                // No answer is asked for.
                cancel.push(1);
                let frame = method(channel, &cancel);
                pipe.frames.lock().unwrap().write_all(&frame).unwrap();
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.cuts.lock().unwrap().is_over = true;
        self.shared.healed.notify_all();
        self.tear();
        // Wakes the listening thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// Waits while this way is cut for a connection. False: the network is gone.
    fn let_through(&self, way: Way, number: usize) -> bool {
        let cuts = self.cuts.lock().unwrap();
        let is_cut = |cuts: &mut Cuts| {
            !cuts.is_over
                && match way {
                    Way::ToBroker => cuts.to_broker || cuts.stuck.contains(&number),
                    Way::FromBroker => cuts.from_broker,
                }
        };
        !self.healed.wait_while(cuts, is_cut).unwrap().is_over
    }

    fn note_end(&self, is_farewell_said: bool) {
        let mut ends = self.ends.lock().unwrap();
        ends.open -= 1;
        ends.abrupt += u64::from(!is_farewell_said);
        self.ended.notify_all();
    }

    /// Whether the broker fails at this frame.
    fn crashes_at(&self, frame: &[u8]) -> bool {
        let mut crashes = self.crashes.lock().unwrap();
        let crashing = crashes.as_mut().filter(|crashes| {
            crashes.left > 0 && routing_key(frame) == Some(crashes.queue.as_bytes())
        });
        match crashing {
            Some(crashes) => {
                crashes.left -= 1;
                true
            }
            None => false,
        }
    }

    /// Whether a client is not to hear this frame; then it is kept.
    fn withholds(&self, client: &Arc<Mutex<TcpStream>>, frame: &[u8]) -> bool {
        let mut withheld = self.withheld.lock().unwrap();
        let Some(withheld) = withheld.as_mut().filter(|_| is_end(frame)) else {
            return false;
        };
        withheld.push(Withheld {
            client: client.clone(),
            frame: frame.to_vec(),
        });
        true
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream, broker: TcpStream) {
    for stream in [&client, &broker] {
        // What is carried waits for nothing but a cut.
        stream.set_nodelay(true).unwrap();
    }
    shared.ends.lock().unwrap().open += 1;
    let number = shared.pipes.lock().unwrap().len();
    let frames = Arc::new(Mutex::new(client.try_clone().unwrap()));
    let consumer = Arc::new(Mutex::new(None));
    let is_farewell_said = Arc::new(AtomicBool::new(false));
    let copies = || (client.try_clone().unwrap(), broker.try_clone().unwrap());
    let (to_broker, from_broker) = (shared.clone(), shared.clone());
    let (here, mut there) = copies();
    let (answers, farewell) = (frames.clone(), is_farewell_said.clone());
    std::thread::spawn(move || {
        let mut reading = BufReader::new(&here);
        let mut greeting = vec![0; 8];
        let mut next = reading.read_exact(&mut greeting).map(|()| greeting);
        while let Ok(frame) = next {
            if to_broker.crashes_at(&frame) {
                // Either end may be gone; to the client's answer there is nothing to say.
                let _ = answers.lock().unwrap().write_all(&internal_error());
                let _ = io::copy(&mut reading, &mut io::sink());
                break;
            }
            if !to_broker.let_through(Way::ToBroker, number) || there.write_all(&frame).is_err() {
                break;
            }
            next = read_frame(&mut reading);
            to_broker.frames_to_broker.fetch_add(1, Ordering::SeqCst);
        }
        to_broker.note_end(farewell.load(Ordering::SeqCst));
        // The end of the connection is cut off too.
        to_broker.let_through(Way::ToBroker, number);
        end(&here, &there);
    });
    let (here, mut there) = copies();
    let (writes, seen) = (frames.clone(), consumer.clone());
    std::thread::spawn(move || {
        while let Ok(frame) = read_frame(&mut there) {
            if !from_broker.let_through(Way::FromBroker, number) {
                break;
            }
            if let Some(subscription) = subscription(&frame) {
                *seen.lock().unwrap() = Some(subscription);
            }
            if is_farewell(&frame) {
                is_farewell_said.store(true, Ordering::SeqCst);
            }
            if from_broker.withholds(&writes, &frame) {
                continue;
            }
            if writes.lock().unwrap().write_all(&frame).is_err() {
                break;
            }
        }
        from_broker.let_through(Way::FromBroker, number);
        end(&here, &there);
    });
    shared.pipes.lock().unwrap().push(Pipe {
        client,
        broker,
        frames,
        consumer,
    });
}

fn end(client: &TcpStream, broker: &TcpStream) {
    // Either may have ended by itself.
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

/// A frame with its header and its end.
fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame)?;
    let size = u32::from_be_bytes(frame[3..].try_into().unwrap());
    frame.resize(7 + usize::try_from(size).unwrap() + 1, 0);
    from.read_exact(&mut frame[7..])?;
    Ok(frame)
}

/// A frame with a method in it.
fn method(channel: u16, method: &[u8]) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(method.len()).unwrap().to_be_bytes());
    frame.extend(method);
    frame.push(0xce);
    frame
}

/// What the broker ends a connection with when a part of it crashed.
fn internal_error() -> Vec<u8> {
    const CODE: u16 = 541;
    const TEXT: &[u8] = b"INTERNAL_ERROR";
    let mut close = vec![0, 10, 0, 50];
    close.extend(CODE.to_be_bytes());
    close.push(u8::try_from(TEXT.len()).unwrap());
    close.extend(TEXT);
    // No method of the client's is at fault.
    close.extend([0; 4]);
    method(0, &close)
}

/// Where a message is to go by the exchange without a name, if this frame begins one.
fn routing_key(frame: &[u8]) -> Option<&[u8]> {
    let [
        1,
        _,
        _,
        _,
        _,
        _,
        _,
        0,
        60,
        0,
        40,
        _,
        _,
        0,
        length,
        rest @ ..,
    ] = frame
    else {
        return None;
    };
    rest.get(..usize::from(*length))
}

/// The subscription, if the broker says that one begins.
fn subscription(frame: &[u8]) -> Option<Subscription> {
    let [1, high, low, _, _, _, _, 0, 60, 0, 21, length, rest @ ..] = frame else {
        return None;
    };
    let tag = rest.get(..usize::from(*length))?;
    Some(Subscription {
        channel: u16::from_be_bytes([*high, *low]),
        tag: tag.to_vec(),
    })
}

/// Whether the broker says goodbye: the client has closed the connection, and it knows.
fn is_farewell(frame: &[u8]) -> bool {
    matches!(frame, [1, _, _, _, _, _, _, 0, 10, 0, 51, ..])
}

/// Whether the broker says that a subscription has ended.
fn is_end(frame: &[u8]) -> bool {
    matches!(frame, [1, _, _, _, _, _, _, 0, 60, 0, 31, ..])
}
