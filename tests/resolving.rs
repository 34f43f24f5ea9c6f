//! Names that the system resolves to where no plugin is to get, as a name server of an attacker's would.

use std::net::TcpListener;
use std::process::Command;

use scutwork::plugin::embedded;

use crate::support::program::Place;

/// Names and where they lead. All are granted, as names that anybody may register.
const NAMES: &[(&str, &str)] = &[
    ("metadata.test", "169.254.169.254"),
    ("loopback.test", "127.0.0.1"),
    ("inside.test", "10.0.0.1"),
    ("mapped.test", "::ffff:127.0.0.1"),
    ("translated.test", "64:ff9b::7f00:1"),
    ("local.test", "fe80::1"),
    ("unique.test", "fd00:ec2::254"),
];

/// What starts a command in mounts of its own.
fn apart() -> &'static [&'static str] {
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    ways.into_iter()
        .find(|way| {
            let tried = Command::new("unshare").args(*way).arg("true").output();
            tried.is_ok_and(|tried| tried.status.success())
        })
        .unwrap_or_else(|| panic!("NOT RUN: needs unshare, as root or with user namespaces"))
}

#[test]
fn a_granted_name_that_leads_inside_is_refused() {
    let place = Place::new();
    // It would take what came.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts: String = NAMES
        .iter()
        .map(|(name, address)| format!("{address} {name}\n"))
        .collect();
    place.file("hosts", hosts);
    let origins: Vec<String> = NAMES
        .iter()
        .map(|(name, _)| format!("http://{name}:{port}"))
        .collect();
    place.file("plugins/nosy.wasm", embedded::nosy());
    place.file(
        "plugins/nosy.toml",
        format!("[http]\nallow = {origins:?}\n"),
    );
    let tries: Vec<String> = origins
        .iter()
        .map(|origin| format!("get {origin}/"))
        .collect();
    place.file("tries", tries.join("\n"));
    let program = env!("CARGO_BIN_EXE_scutwork");
    let script = format!("mount --bind hosts /etc/hosts && exec {program} run nosy @tries");
    let mut arguments = apart().to_vec();
    arguments.extend(["sh", "-c", &script]);
    let ended = place.call(".", "unshare", &arguments).exits(0);
    let text = ended.text();
    let came: Vec<&str> = text.lines().collect();
    assert_eq!(
        came,
        vec!["denied: ErrorCode::DestinationIpProhibited"; NAMES.len()],
        "{}",
        ended.stderr
    );
    for (name, _) in NAMES {
        let refused = format!("request to http://{name}:{port} refused");
        assert!(ended.stderr.contains(&refused), "{}", ended.stderr);
    }
    assert!(listener.accept().is_err());
}
