//! One exchange over `wasi:http`: a request out, an answer in. What an answer means is not known here.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme,
};
use wasip2::io::streams::StreamError;

use crate::Request;

/// What a server said.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// The host lets no request go there.
    Refused(String),
    /// It is no request that can be sent.
    Wrong(String),
    /// The server is away, or the connection was lost.
    Lost(String),
}

impl Answer {
    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends a request and waits for the whole answer.
pub(crate) fn send(request: &Request) -> Result<Answer, NoAnswer> {
    let outgoing = outgoing(request)?;
    let body = outgoing.body().map_err(|()| wrong("body"))?;
    let coming = outgoing_handler::handle(outgoing, None).map_err(no_answer)?;
    write(body, request.body.as_bytes())?;
    coming.subscribe().block();
    match coming.get() {
        Some(Ok(came)) => read(came.map_err(no_answer)?),
        Some(Err(())) | None => Err(NoAnswer::Lost("no answer came".to_owned())),
    }
}

fn outgoing(request: &Request) -> Result<OutgoingRequest, NoAnswer> {
    let (scheme, rest) = request.url.split_once("://").ok_or_else(|| wrong("url"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or_default();
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => Scheme::Other(other.to_owned()),
    };
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers
            .append(name, value.as_bytes())
            .map_err(|error| NoAnswer::Wrong(format!("header {name}: {error}")))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    outgoing
        .set_method(&method(&request.method))
        .map_err(|()| wrong("method"))?;
    outgoing
        .set_scheme(Some(&scheme))
        .and_then(|()| outgoing.set_authority(Some(authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&path)))
        .map_err(|()| wrong("url"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    }
}

/// Writes the request's body, as much at a time as the host takes.
fn write(body: OutgoingBody, content: &[u8]) -> Result<(), NoAnswer> {
    /// What `blocking_write_and_flush` takes at once.
    const PIECE: usize = 4096;
    let stream = body.write().map_err(|()| wrong("body"))?;
    for piece in content.chunks(PIECE) {
        // A server may answer before it has read it all, and that answer counts.
        if stream.blocking_write_and_flush(piece).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

fn read(response: IncomingResponse) -> Result<Answer, NoAnswer> {
    let headers = response.headers().entries().into_iter();
    let headers = headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()));
    let (status, headers) = (response.status(), headers.collect());
    let incoming: IncomingBody = response.consume().map_err(|()| lost("no body"))?;
    let stream = incoming.stream().map_err(|()| lost("no body"))?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => body.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(lost(&error.to_debug_string()));
            }
        }
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn no_answer(error: ErrorCode) -> NoAnswer {
    match error {
        ErrorCode::HttpRequestDenied => {
            NoAnswer::Refused("the manifest grants no request there".to_owned())
        }
        ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestLengthRequired
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpRequestUriTooLong
        | ErrorCode::HttpRequestHeaderSectionSize(_)
        | ErrorCode::HttpRequestHeaderSize(_) => NoAnswer::Wrong(error.to_string()),
        error => NoAnswer::Lost(error.to_string()),
    }
}

fn wrong(what: &str) -> NoAnswer {
    NoAnswer::Wrong(format!("the {what} cannot be sent as it is"))
}

fn lost(why: &str) -> NoAnswer {
    NoAnswer::Lost(why.to_owned())
}
