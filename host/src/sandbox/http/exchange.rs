//! One request and its response, over a connection of their own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::super::breach::Breach;
use super::network::Connection;
use super::origin::Target;
use crate::outcome::Limit;

/// How long to wait for a connection, unless the guest says otherwise.
pub(super) const CONNECT: Duration = Duration::from_secs(30);
/// How long to wait for a response, or for more of it, unless the guest says otherwise.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest head of a response, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// What one request is held to.
#[derive(Clone)]
pub(super) struct Bounds {
    /// The most that either body has, in bytes. One that has more ends the run.
    pub(super) body: u64,
    pub(super) breach: Breach,
    /// When all of it must be over.
    pub(super) until: Instant,
}

impl Bounds {
    /// A wait, or what is left of the request's time where that is less.
    pub(super) fn left_of(&self, wait: Duration) -> Duration {
        wait.min(self.until.saturating_duration_since(Instant::now()))
    }
}

/// A response, and what has to go on for its body to come.
pub(super) type Exchanged = (
    Response<WasiBody>,
    Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
);

/// Sends a request and waits for the response's head.
pub(super) async fn exchange(
    connection: Box<dyn Connection>,
    target: &Target,
    mut request: Request<WasiBody>,
    options: RequestOptions,
    bounds: Bounds,
) -> Result<Exchanged, Error> {
    // In the form for the server itself: a whole URL would ask a proxy for any other.
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    if !path.starts_with('/') {
        return Err(Error::HttpRequestUriInvalid);
    }
    let path = Uri::try_from(path).map_err(|_| Error::HttpRequestUriInvalid)?;
    *request.uri_mut() = path;
    let host =
        HeaderValue::try_from(target.authority()).map_err(|_| Error::HttpRequestUriInvalid)?;
    request.headers_mut().insert(HOST, host);
    let request = request.map(|body| {
        Bounded {
            body,
            left: bounds.body,
            bounds: bounds.clone(),
            over: || Error::HttpRequestBodySize(None),
            patience: None,
        }
        .boxed_unsync()
    });

    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(connection))
        .await?;
    let mut connection = Some(Box::pin(connection));
    let mut response = pin!(sender.send_request(request));
    let response = poll_fn(|context| {
        if let Poll::Ready(response) = response.as_mut().poll(context) {
            return Poll::Ready(response);
        }
        let Some(open) = &mut connection else {
            return Poll::Pending;
        };
        let ended = ready!(open.as_mut().poll(context));
        connection = None;
        match ended {
            // It may have brought the response in the end.
            Ok(()) => response.as_mut().poll(context),
            Err(error) => Poll::Ready(Err(error)),
        }
    });
    let first = options.first_byte_timeout.unwrap_or(SILENCE);
    let response = timeout(bounds.left_of(first), response)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let between = options.between_bytes_timeout.unwrap_or(SILENCE);
    let response = response.map(|body| {
        Bounded {
            body: body.map_err(Error::from),
            left: bounds.body,
            over: || Error::HttpResponseBodySize(None),
            patience: Some(Patience {
                most: between,
                sleep: Box::pin(tokio::time::sleep(bounds.left_of(between))),
            }),
            bounds,
        }
        .boxed_unsync()
    });
    let rest = Box::pin(async move {
        match connection {
            Some(open) => open.await.map_err(Error::from),
            None => Ok(()),
        }
    });
    Ok((response, rest))
}

/// A body of at most so many bytes, which come without long silences.
struct Bounded<B> {
    body: B,
    left: u64,
    bounds: Bounds,
    over: fn() -> Error,
    patience: Option<Patience>,
}

struct Patience {
    most: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(size) {
                    Some(left) => self.left = left,
                    None => {
                        self.bounds.breach.report(Limit::HttpBody);
                        return Poll::Ready(Some(Err((self.over)())));
                    }
                }
                let until = self.bounds.until;
                if let Some(Patience { most, sleep }) = &mut self.patience {
                    sleep.as_mut().reset(until.min(Instant::now() + *most));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => match &mut self.patience {
                Some(Patience { sleep, .. }) => sleep
                    .as_mut()
                    .poll(context)
                    .map(|()| Some(Err(Error::ConnectionReadTimeout))),
                None => Poll::Pending,
            },
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
