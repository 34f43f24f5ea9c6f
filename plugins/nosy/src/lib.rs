//! Tries to reach what nobody granted it, and tells what came of it: for trying out the sandbox.
//!
//! Without a payload it tries one thing of each kind, and the output is a line of text for each, such
//! as `files: denied`. Clocks and randomness are there for every plugin. Otherwise each line of the
//! payload is a try of the caller's own, such as `read /etc/passwd` or `get http://localhost/`, and the
//! output is what came of each.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::SystemTime;
use std::{env, fs};

use scutwork_plugin::{Failure, Output, Task, log, plugin};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingResponse, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

plugin!(nosy);

fn nosy(task: Task) -> Result<Output, Failure> {
    if !task.payload.is_empty() {
        return follow(&String::from_utf8_lossy(&task.payload));
    }
    let tries = [
        ("environment", said(env::vars().count())),
        ("arguments", said(env::args().count())),
        ("files", denied(fs::read_to_string("/etc/passwd"))),
        ("directory", denied(fs::read_dir("."))),
        ("tcp", denied(TcpStream::connect("127.0.0.1:22"))),
        ("udp", denied(UdpSocket::bind("127.0.0.1:0"))),
        ("names", denied("localhost:80".to_socket_addrs())),
        ("http", denied(request("https", "localhost", "/"))),
        ("clock", said(SystemTime::now() > SystemTime::UNIX_EPOCH)),
        ("randomness", said(random())),
    ];
    let lines: String = tries
        .iter()
        .map(|(what, came)| format!("{what}: {came}\n"))
        .collect();
    Ok(Output::text(lines))
}

/// Tries what each line says.
fn follow(payload: &str) -> Result<Output, Failure> {
    let mut told = String::new();
    for line in payload.lines() {
        let (verb, what) = line.split_once(' ').unwrap_or((line, ""));
        let (first, second) = what.split_once(' ').unwrap_or((what, ""));
        let came = match verb {
            "read" => fs::read_to_string(what).map_err(said),
            "write" => fs::write(first, second)
                .map(|()| said("written"))
                .map_err(said),
            "rename" => fs::rename(first, second)
                .map(|()| said("renamed"))
                .map_err(said),
            "remove" => fs::remove_file(what)
                .map(|()| said("removed"))
                .map_err(said),
            "list" => list(what),
            "env" => env::var(what).map_err(said),
            "get" => get(what),
            "follow" => follow_redirect(what),
            "ask" => match first.split_once("://") {
                Some((scheme, authority)) => fetch(scheme, authority, second),
                None => Err(said("no URL")),
            },
            "say" => {
                eprintln!("{}", env::var(what).unwrap_or_default());
                log::info(&env::var(what).unwrap_or_default(), &[]);
                Ok(said("said"))
            }
            "panic" => panic!("{}", env::var(what).unwrap_or_default()),
            "reject" => {
                return Err(Failure::reject("asked", env::var(what).unwrap_or_default()));
            }
            _ => Err(said("no such verb")),
        };
        told += &match came {
            Ok(came) => format!("{came}\n"),
            Err(error) => format!("denied: {error}\n"),
        };
    }
    Ok(Output::text(told))
}

fn list(directory: &str) -> Result<String, String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(said)? {
        names.push(
            entry
                .map_err(said)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names.join(" "))
}

/// A response's status and body in one line.
fn get(url: &str) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    fetch(scheme, authority, &format!("/{path}"))
}

/// A redirect's status, and what comes of going where it leads.
fn follow_redirect(url: &str) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let response = request(scheme, authority, &format!("/{path}"));
    let response = response.map_err(|error| format!("{error:?}"))?;
    let location = response.headers().get("location").into_iter().next();
    let location = String::from_utf8(location.ok_or("no redirect")?).map_err(said)?;
    let came = get(&location).unwrap_or_else(|error| format!("denied: {error}"));
    Ok(format!("{} {came}", response.status()))
}

fn fetch(scheme: &str, authority: &str, path: &str) -> Result<String, String> {
    let response = request(scheme, authority, path).map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.consume().map_err(|()| said("no body"))?;
    let stream = body.stream().map_err(|()| said("no stream"))?;
    let mut content = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => content.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    Ok(format!("{status} {}", String::from_utf8_lossy(&content)))
}

/// Sends a request, and waits for what comes of it.
fn request(scheme: &str, authority: &str, path: &str) -> Result<IncomingResponse, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let scheme = match scheme {
        "http" => Scheme::Http,
        _ => Scheme::Https,
    };
    request
        .set_authority(Some(authority))
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_path_with_query(Some(path)))
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
