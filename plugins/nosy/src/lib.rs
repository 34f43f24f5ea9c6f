//! Tries to reach what nobody granted it, and tells what came of it: for trying out the sandbox.
//!
//! The payload does not matter. The output is a line of text for each try, such as
//! `files: denied`; clocks and randomness are there for every plugin.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::SystemTime;
use std::{env, fs};

use exports::scutwork::task::handler::{Failure, Guest, Output, Task};

wit_bindgen::generate!({ world: "plugin", path: "../../wit" });

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
            ("clock", said(SystemTime::now() > SystemTime::UNIX_EPOCH)),
            ("randomness", said(is_random())),
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

fn said(value: impl Display) -> String {
    value.to_string()
}

fn denied<T, E>(tried: Result<T, E>) -> String {
    match tried {
        Ok(_) => said("reached"),
        Err(_) => said("denied"),
    }
}

/// Two hashers of one program are keyed alike only if there is nothing to key them with.
fn is_random() -> bool {
    let keys = RandomState::new().hash_one(0);
    keys != 0
}
