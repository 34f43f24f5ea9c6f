//! [`Inlet`]: a connection's bytes on their way to the client library, frame by frame, each made such
//! that it can be read. Of bodies it looks at nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;

use super::repair::{HEAD, HEADER, METHOD, Repair};

/// The largest frame that is waited for as a whole. RabbitMQ's default for its largest is 128 KiB.
const LARGEST: usize = 1 << 20;

/// What the client library runs on: tokio, with connections that are read through an [`Inlet`].
pub(super) type Runtime = async_rs::Runtime<RuntimeParts<Tokio, Sockets>>;

/// A connection as tokio opens it, encrypted or not.
type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Opens connections that are read through an [`Inlet`].
#[derive(Clone, Debug)]
pub(super) struct Sockets(Tokio);

/// A connection, read through a repair.
pub(super) struct Inlet<S> {
    stream: S,
    frames: Frames,
}

/// Where in the frames the reading is.
struct Frames {
    repair: Repair,
    /// How many of the next bytes are nobody's concern here.
    passing: usize,
    /// The beginning of a frame that is looked at; or all of it, repaired.
    held: Vec<u8>,
    is_whole: bool,
    /// How much of what is held has been handed on.
    given: usize,
}

/// The runtime for a connection that is opened from here.
pub(super) fn runtime() -> Runtime {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)))
}

impl<S> Inlet<S> {
    pub(super) fn new(stream: S) -> Self {
        Inlet {
            stream,
            frames: Frames {
                repair: Repair::new(),
                passing: 0,
                held: Vec::new(),
                is_whole: false,
                given: 0,
            },
        }
    }
}

impl Frames {
    /// Follows bytes that were read, repairs the whole frames in them, and gives how many of them are
    /// to be handed on. What is left over is held.
    fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut end) = (0, bytes.len());
        loop {
            let passed = self.passing.min(end - at);
            self.passing -= passed;
            at += passed;
            let rest = &mut bytes[at..end];
            match measure(rest) {
                _ if rest.is_empty() => return end,
                Some((true, length)) if length <= rest.len() => {
                    let repaired = self.repair.frame(&mut rest[..length]);
                    rest.copy_within(length.., repaired);
                    at += repaired;
                    end -= length - repaired;
                }
                Some((false, length)) => self.passing = length,
                Some((true, _)) | None => {
                    self.held.extend_from_slice(rest);
                    return at;
                }
            }
        }
    }

    /// How many bytes must come until what is held can be handed on.
    fn missing(&mut self) -> usize {
        match measure(&self.held) {
            None => HEAD - self.held.len(),
            Some((true, length)) => length - self.held.len(),
            Some((false, length)) => {
                self.passing = length - self.held.len();
                0
            }
        }
    }

    /// What is held cannot be more complete.
    fn complete(&mut self) {
        if self.passing == 0 {
            let length = self.repair.frame(&mut self.held);
            self.held.truncate(length);
        }
        self.is_whole = true;
    }

    /// Hands on what is held.
    fn give(&mut self, to: &mut [u8]) -> usize {
        let rest = &self.held[self.given..];
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        if self.given == self.held.len() {
            self.held.clear();
            self.is_whole = false;
            self.given = 0;
        }
        count
    }
}

/// Whether the frame that begins here is looked at, and how long it is; once that can be told.
fn measure(bytes: &[u8]) -> Option<(bool, usize)> {
    let head = bytes.get(..HEAD)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let length = usize::try_from(size).ok()?.saturating_add(HEAD + 1);
    let is_looked_at = matches!(head[0], METHOD | HEADER) && length <= LARGEST;
    Some((is_looked_at, length))
}

impl<S: AsyncRead + Unpin> AsyncRead for Inlet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Inlet { stream, frames } = &mut *self;
        let mut stream = Pin::new(stream);
        loop {
            if frames.is_whole {
                return Poll::Ready(Ok(frames.give(to)));
            }
            if frames.held.is_empty() {
                let read = ready!(stream.as_mut().poll_read(context, to))?;
                let handed_on = frames.follow(&mut to[..read]);
                if read == 0 || handed_on > 0 {
                    return Poll::Ready(Ok(handed_on));
                }
                continue;
            }
            match frames.missing() {
                0 => frames.complete(),
                missing => {
                    let held = frames.held.len();
                    frames.held.resize(held + missing, 0);
                    let read = stream.as_mut().poll_read(context, &mut frames.held[held..]);
                    let more = match &read {
                        Poll::Ready(Ok(more)) => *more,
                        Poll::Ready(Err(_)) | Poll::Pending => 0,
                    };
                    frames.held.truncate(held + more);
                    if ready!(read)? == 0 {
                        return Poll::Ready(Ok(0));
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inlet<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

impl Reactor for Sockets {
    type TcpStream = Inlet<Socket>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let opening = self.0.tcp_connect_addr(address);
        async move { Ok(Inlet::new(AsyncTcpStream::Plain(opening.await?))) }
    }
}

#[cfg(test)]
mod tests;
