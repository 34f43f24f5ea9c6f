//! A guest's stdout and stderr. In a [`Pen`] every line becomes an event, and writing never fails,
//! waits or traps; a [`Sheet`] is a command's output.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::voice::{Stream, Voice};

/// How much a guest may write in one go, in bytes. The host copies that much before it cuts.
const CHUNK: usize = 64 << 10;

/// One end of a guest's stream. All ends of a stream write to the same lines.
#[derive(Clone)]
pub(super) struct Pen {
    voice: Arc<Voice>,
    stream: Stream,
}

impl Pen {
    /// An end of the stream.
    pub(super) fn new(voice: &Arc<Voice>, stream: Stream) -> Pen {
        Pen {
            voice: Arc::clone(voice),
            stream,
        }
    }
}

impl IsTerminal for Pen {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pen {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pen {
    async fn ready(&mut self) {}
}

impl OutputStream for Pen {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.voice.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Pen {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.voice.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A command's stdout: it is the output, and one that is too long ends the run.
#[derive(Clone)]
pub(super) struct Sheet(Arc<Mutex<Written>>);

struct Written {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Sheet {
    /// An empty one, for at most so many bytes.
    pub(super) fn new(limit: u64) -> Sheet {
        Sheet(Arc::new(Mutex::new(Written {
            bytes: Vec::new(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            is_over: false,
        })))
    }

    /// Whether more was written than there may be.
    pub(super) fn is_over(&self) -> bool {
        self.written().is_over
    }

    /// What was written, and leaves nothing.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.written().bytes)
    }

    fn add(&self, bytes: &[u8]) -> bool {
        let mut written = self.written();
        written.is_over |= bytes.len() > written.limit - written.bytes.len();
        if !written.is_over {
            written.bytes.extend_from_slice(bytes);
        }
        !written.is_over
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Nothing here can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for Sheet {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sheet {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Sheet {
    async fn ready(&mut self) {}
}

impl OutputStream for Sheet {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.add(&bytes) {
            return Ok(());
        }
        // There is no way on: what is missing would be missed. The run's outcome names the limit.
        Err(StreamError::trap("the output is over its limit"))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Sheet {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(if self.add(bytes) {
            Ok(bytes.len())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
