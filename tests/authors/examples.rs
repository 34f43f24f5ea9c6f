//! The plugins that README and guide quote, built as their authors would and served from a queue.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use sha2::{Digest, Sha256};

use super::{is_asked, place};
use crate::support::program::{PATIENCE, Place, Running};

/// A plugin of `plugins/`, built from a copy of its folder and served by a worker.
struct Served {
    place: Place,
    broker: String,
    _worker: Running,
}

impl Served {
    fn new(name: &str, manifest: Option<&str>) -> Served {
        let place = place();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for folder in ["wit", "plugins/sdk", &format!("plugins/{name}")] {
            copy(
                &root.join(folder),
                &place.path().join("source").join(folder),
            );
        }
        if let Some(manifest) = manifest {
            place.file(&format!("plugins/{name}.toml"), manifest);
        }
        let folder = format!("source/plugins/{name}");
        place
            .run(&["plugin", "build", &folder, "--out", "plugins"])
            .exits(0);
        let broker = format!("sqlite:{}", place.path().join("queue.db").display());
        let worker = place.worker(&broker, "tasks", &[]);
        Served {
            place,
            broker,
            _worker: worker,
        }
    }

    /// What a task comes to, by the exit code: 0 is done, with the output.
    fn submit(&self, code: i32, arguments: &[&str]) -> Vec<u8> {
        let mut submit = vec!["submit"];
        submit.extend(arguments);
        submit.extend(["--wait", "--broker", &self.broker]);
        self.place.run(&submit).exits(code).stdout
    }

    /// The plugin's own tests, as its author runs them.
    fn test(&self, name: &str, own: &[&str]) {
        let folder = format!("source/plugins/{name}");
        self.place.call(&folder, own[0], &own[1..]).exits(0);
    }
}

/// Copies what belongs to a folder, and not what was built in it.
fn copy(from: &Path, to: &Path) {
    const MADE: [&str; 5] = ["target", "build", ".venv", "__pycache__", "node_modules"];
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if MADE.iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// A server that answers every request by its path, and tells each to the test.
fn server() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut was_busy = false;
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            let request = read(&connection);
            let answer = match request.split(' ').nth(1).unwrap() {
                "/busy" if !was_busy => {
                    was_busy = true;
                    "503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 4\r\n\r\nlate"
                }
                "/gone" => "410 Gone\r\ncontent-length: 10\r\n\r\nsold out :",
                _ => "200 OK\r\ncontent-type: text/css\r\ncontent-length: 7\r\n\r\nwelcome",
            };
            let answer = format!(
                "HTTP/1.1 {}",
                answer.replacen("\r\n", "\r\nconnection: close\r\n", 1)
            );
            (&connection).write_all(answer.as_bytes()).unwrap();
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (origin, requests)
}

/// A request's head, and as much of a body as comes in chunks or by its length.
fn read(connection: &TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    while reader.read_line(&mut request).unwrap() > 2 {}
    let head = request.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).unwrap();
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn fetch_tries_again_what_may_pass_and_rejects_what_will_not() {
    let (origin, requests) = server();
    let served = Served::new("fetch", Some(&format!("[http]\nallow = [\"{origin}\"]\n")));
    let next = || requests.recv_timeout(PATIENCE).unwrap();

    let order = format!(
        r#"{{"url": "{origin}/orders?x=1", "method": "POST", "headers": {{"x-a": "b"}}, "body": "7 bolts"}}"#
    );
    let body = served.submit(0, &["fetch", &order, "--id", "order-7"]);
    assert_eq!(body, b"welcome");
    let request = next();
    assert!(request.starts_with("post /orders?x=1 "), "{request}");
    for part in [
        "idempotency-key: order-7\r\n",
        "x-a: b\r\n",
        "\r\n\r\n7 bolts",
    ] {
        assert!(request.contains(part), "no {part:?} in {request}");
    }

    let busy = format!(r#"{{"url": "{origin}/busy"}}"#);
    assert_eq!(served.submit(0, &["fetch", &busy]), b"welcome");
    assert!(next().starts_with("get /busy ") && next().starts_with("get /busy "));

    let dead = |payload: &str, reason: &str| {
        served.submit(1, &["fetch", payload, "--id", reason]);
        let letter = served
            .place
            .run(&["dead", "show", reason, "--broker", &served.broker])
            .exits(0)
            .text();
        assert!(letter.contains(reason), "no {reason:?} in {letter}");
    };
    dead(&format!(r#"{{"url": "{origin}/gone"}}"#), "status-410");
    dead(r#"{"url": "http://127.0.0.1:1/"}"#, "not-granted");
    dead("no json", "bad-json");
    if is_asked("rust") {
        served.test("fetch", &["cargo", "test"]);
    }
}

#[test]
fn thumb_makes_small_images_of_large_ones_and_rejects_what_is_none() {
    let served = Served::new("thumb", None);
    let sample = |kind: &str| format!("@source/plugins/thumb/sample.{kind}");
    let png = served.submit(0, &["thumb", &sample("png"), "--header", "size=64"]);
    assert_eq!(size_of_png(&png), (64, 40));
    let jpeg = served.submit(0, &["thumb", &sample("jpg")]);
    assert_eq!(size_of_jpeg(&jpeg), (256, 160));
    served.submit(1, &["thumb", "@source/plugins/thumb/thumb.toml"]);
    served
        .place
        .run(&["run", "thumb", &sample("jpg"), "--header", "size=0"])
        .exits(1)
        .says(&["bad-size", "may be 1 to 4096"]);
    if is_asked("rust") {
        served.test("thumb", &["cargo", "test"]);
    }
}

/// The width and the height that a file says it has.
fn size_of_png(file: &[u8]) -> (u32, u32) {
    assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// The same of a JPEG file: what the frame says, behind the segments before it.
fn size_of_jpeg(file: &[u8]) -> (u32, u32) {
    assert_eq!(&file[..2], b"\xff\xd8");
    let number = |at: usize| u32::from(u16::from_be_bytes([file[at], file[at + 1]]));
    let mut at = 2;
    while !matches!(file[at + 1], 0xc0..=0xc2) {
        at += 2 + number(at + 2) as usize;
    }
    (number(at + 7), number(at + 5))
}

#[test]
fn csv_makes_an_object_of_each_row_and_rejects_what_is_no_table() {
    if !is_asked("python") {
        return;
    }
    let served = Served::new("csv", None);
    let lines = served.submit(0, &["csv", "@source/plugins/csv/sample.csv"]);
    let expected = "{\"name\": \"Bolt, M4\", \"price\": \"0.10\"}\n{\"name\": \"Nut \\\"fine\\\"\", \"price\": \"0.08\"}\n";
    assert_eq!(String::from_utf8(lines).unwrap(), expected);
    served
        .place
        .run(&["run", "csv", "a;b\n1\n", "--header", "delimiter=;"])
        .exits(1)
        .says(&["ragged: line 2 has 1 cells"]);
    served.test("csv", &["python3", "-m", "unittest"]);
}

#[test]
fn csv_has_the_library_that_a_new_plugin_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in ["scutwork.py", "app.py", "requirements.txt"] {
        let [template, own] = ["host/templates/python", "plugins/csv"]
            .map(|folder| std::fs::read_to_string(root.join(folder).join(file)).unwrap());
        assert!(
            template == own,
            "copy host/templates/python/{file} to plugins/csv"
        );
    }
}

#[test]
fn checksum_sums_every_byte_and_rejects_what_arrived_damaged() {
    if !is_asked("c") {
        return;
    }
    let served = Served::new("checksum", None);
    // About the sizes at which a block is filled and a length finds no room any more.
    for size in [0, 1, 55, 56, 63, 64, 65, 100_000] {
        let payload: Vec<u8> = (0..size).map(|byte: u32| byte as u8).collect();
        served.place.file("payload", &payload);
        let digits = served.submit(0, &["checksum", "@payload"]);
        let expected: String = Sha256::digest(&payload)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            String::from_utf8(digits).unwrap().trim(),
            expected,
            "{size}"
        );
        let header = format!("expect={expected}");
        served.submit(0, &["checksum", "@payload", "--header", &header]);
    }
    served.submit(1, &["checksum", "hello", "--header", "expect=00"]);
}
