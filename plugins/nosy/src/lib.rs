//! Tries to reach what nobody granted it, and tells what came of it: for trying out the sandbox.
//!
//! The payload does not matter. The output is a line of text for each try, such as
//! `files: denied`. Clocks and randomness are there for every plugin.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::SystemTime;
use std::{env, fs};

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingResponse, OutgoingRequest};

wit_bindgen::generate!({
    world: "scutwork:nosy/nosy",
    path: ["../../wit", "wit"],
    generate_all,
});

struct Nosy;

export!(Nosy);

impl Guest for Nosy {
    fn handle(_: Task) -> Result<Output, Failure> {
        let tries = [
            ("environment", said(env::vars().count())),
            ("arguments", said(env::args().count())),
            ("files", denied(fs::read_to_string("/etc/passwd"))),
            ("directory", denied(fs::read_dir("."))),
            ("tcp", denied(TcpStream::connect("127.0.0.1:22"))),
            ("udp", denied(UdpSocket::bind("127.0.0.1:0"))),
            ("names", denied("localhost:80".to_socket_addrs())),
            ("http", denied(request("localhost"))),
            ("clock", said(SystemTime::now() > SystemTime::UNIX_EPOCH)),
            ("randomness", said(random())),
        ];
        let lines: String = tries
            .iter()
            .map(|(what, came)| format!("{what}: {came}\n"))
            .collect();
        Ok(Output {
            content_type: Some("text/plain".into()),
            body: lines.into(),
        })
    }
}

/// Sends a request, and waits for what comes of it.
fn request(authority: &str) -> Result<IncomingResponse, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_authority(Some(authority))
        .and_then(|()| request.set_path_with_query(Some("/")))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let coming = outgoing_handler::handle(request, None)?;
    coming.subscribe().block();
    match coming.get() {
        Some(Ok(came)) => came,
        Some(Err(())) | None => Err(ErrorCode::HttpResponseIncomplete),
    }
}

fn said(value: impl Display) -> String {
    value.to_string()
}

fn denied<T, E>(tried: Result<T, E>) -> String {
    match tried {
        Ok(_) => said("reached"),
        Err(_) => said("denied"),
    }
}

/// A number that no two runs share: hashers are keyed with what the host calls random.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
