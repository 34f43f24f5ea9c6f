//! What producers might send: every property and every type of header, at its worst.

use super::wire::{Properties, entry, long, text_entry};

/// One hostile message and what must become of it. None: whatever, but an end.
pub(super) struct Hostile {
    pub(super) name: String,
    pub(super) properties: Properties,
    pub(super) body: Vec<u8>,
    pub(super) dies_of: Option<&'static str>,
}

pub(super) fn hostile(name: impl Into<String>, properties: Properties) -> Hostile {
    Hostile {
        name: name.into(),
        properties,
        body: b"payload".to_vec(),
        dies_of: None,
    }
}

impl Hostile {
    fn dies_of(mut self, error: &'static str) -> Self {
        self.dies_of = Some(error);
        self
    }

    pub(super) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }
}

fn nested(kind: u8, levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
        let inner = [name, &value].concat();
        value = [&[kind], &long(&inner)[..]].concat();
    }
    value
}

/// How many levels of tables fit into a frame.
const DEEPEST: usize = 15_000;

/// How many levels most headers have at most. A broker takes time with the square of them: two seconds for a
/// message of the deepest, and a minute in which it hears no ack if every header has one.
pub(super) const DEEP: usize = 3000;

/// A value of each of AMQP's types, the extremes among them, by its letter; nested no deeper than that.
pub(super) fn values(deepest: usize) -> Vec<(u8, Vec<u8>)> {
    let mut values = vec![
        (b'V', vec![]),
        (b't', vec![0]),
        (b't', vec![2]),
        (b'D', vec![255, 255, 255, 255, 255]),
        (b'f', f32::MAX.to_be_bytes().to_vec()),
        (b'f', f32::NAN.to_be_bytes().to_vec()),
        (b'd', f64::MIN_POSITIVE.to_be_bytes().to_vec()),
        (b'd', f64::INFINITY.to_be_bytes().to_vec()),
        (b'd', f64::NAN.to_be_bytes().to_vec()),
        (b'S', long(b"")),
        (b'S', long(b"-1")),
        (b'S', long(b"99999999999999999999999")),
        (b'S', long(b"\xff\xfe\0\x1b[2J")),
        (b'S', long(&[b'x'; 65_536])),
        (b'x', long(&[0xff; 300])),
        (b'F', long(b"")),
        (b'F', long(&text_entry(b"\xff", "inner"))),
        (b'A', long(b"VVV")),
    ];
    for (kind, bytes) in [
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'l', 8),
        (b'L', 8),
        (b'T', 8),
    ] {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            values.push((kind, vec![value; bytes]));
        }
    }
    for kind in [b'F', b'A'] {
        for levels in [1, 50, 70, DEEP, DEEPEST] {
            if levels <= deepest {
                let value = nested(kind, levels);
                values.push((kind, value[1..].to_vec()));
            }
        }
    }
    values
}

pub(super) const NAMES: [&[u8]; 24] = [
    b"",
    b".",
    b"..",
    b"../../etc/passwd",
    b"..\\..\\boot.ini",
    b"/etc/passwd",
    b"echo/../echo",
    b"echo.wasm/",
    b"C:echo",
    b"echo\0",
    b"\0",
    b"echo\r\nX: y",
    b"\x1b[2J\x1b]0;owned\x07",
    b"\xc2\x9b31m",
    b"%2e%2e%2fecho",
    b"file:///etc/passwd",
    b"-rf",
    b".hidden",
    b"e\xcc\x81cho",
    b"\xe2\x80\xaeohce",
    b"\xef\xbc\x85cho",
    b"echo ",
    b"${HOME}",
    b"'; drop table tasks; --",
];

/// The texts that a producer may set, by their place.
const TEXTS: [(usize, &str); 7] = [
    (0, "content_type"),
    (1, "content_encoding"),
    (5, "correlation_id"),
    (6, "reply_to"),
    (8, "message_id"),
    (12, "app_id"),
    (13, "cluster_id"),
];

pub(super) fn all(queue: &str) -> Vec<Hostile> {
    let mut all = names();
    all.extend(texts());
    all.extend(headers());
    all.extend(forgeries(queue));
    all.push(hostile("nothing at all", Properties::default()).body(Vec::new()));
    all.push(hostile("an empty body", Properties::kind("echo")).body(Vec::new()));
    let large = |size: usize| vec![b'x'; size << 20];
    all.push(hostile("the largest body of 4.x", Properties::kind("echo")).body(large(16)));
    // Over the worker's limit; 4.x does not take it at all.
    all.push(hostile("64 MiB", Properties::kind("echo")).body(large(64)));
    all.push(hostile(
        "priority",
        Properties::kind("echo").with(4, vec![255]),
    ));
    all.push(hostile(
        "delivery mode",
        Properties::kind("echo").with(3, vec![77]),
    ));
    for stamp in [[0; 8], [0x7f; 8], [0xff; 8]] {
        all.push(hostile(
            "timestamp",
            Properties::kind("echo").with(9, stamp.to_vec()),
        ));
    }
    for expiration in [&b"-1"[..], b"\xff", b"4294967295", b"soon", b""] {
        all.push(hostile(
            "expiration",
            Properties::kind("echo").with_text(7, expiration),
        ));
    }
    all
}

fn names() -> Vec<Hostile> {
    let mut all = Vec::new();
    let overlong = vec![b'a'; 255];
    for name in NAMES.into_iter().chain([&overlong[..]]) {
        let shown = String::from_utf8_lossy(name).into_owned();
        all.push(hostile(format!("type {shown}"), Properties::kind(name)).dies_of("plugin name"));
        let header = Properties::headers(&text_entry("plugin", name));
        all.push(hostile(format!("header plugin {shown}"), header).dies_of("plugin name"));
    }
    let bytes = Properties::headers(&text_entry("plugin", b"ech\xff"));
    all.push(hostile("header plugin in bytes", bytes).dies_of("plugin name"));
    all.push(hostile("type in bytes", Properties::kind(b"ech\xff")).dies_of("`type` is not UTF-8"));
    all
}

fn texts() -> Vec<Hostile> {
    let mut all = Vec::new();
    let hostile_texts: [&[u8]; 8] = [
        b"",
        b"\xff",
        &[0xfe; 255],
        &[b'x'; 255],
        b"\0",
        b"\x1b[31m\r\n",
        b"a\xc3",
        b"amq.rabbitmq.reply-to",
    ];
    for (place, name) in TEXTS {
        for text in hostile_texts {
            let properties = Properties::kind("echo").with_text(place, text);
            let shown = String::from_utf8_lossy(text).into_owned();
            let mut one = hostile(format!("{name} {shown}"), properties);
            let reaches_the_task = !matches!(name, "content_encoding" | "app_id" | "cluster_id");
            if std::str::from_utf8(text).is_err() && reaches_the_task {
                one = one.dies_of("is not UTF-8");
            }
            all.push(one);
        }
    }
    for text in [
        &b"nobody"[..],
        b"amq.rabbitmq.reply-to.g1h2AA.x",
        b"\xff\0",
        b"",
    ] {
        let properties = Properties::kind("echo")
            .with_text(6, text)
            .with_text(5, "c");
        all.push(hostile("reply to nobody", properties));
    }
    all
}

fn headers() -> Vec<Hostile> {
    let mut all = Vec::new();
    for name in ["x", "plugin", "traceparent"] {
        for (kind, value) in values(if name == "x" { DEEPEST } else { DEEP }) {
            let properties = Properties::headers(&entry(name, kind, &value));
            let shown = format!("header {name} of type {} {}", char::from(kind), value.len());
            all.push(hostile(shown, properties));
        }
    }
    let many: Vec<u8> = (0..1000)
        .flat_map(|number| text_entry(format!("header-{number}"), "value"))
        .collect();
    all.push(hostile(
        "1000 headers",
        Properties::kind("echo").with_headers(&many),
    ));
    let twice = [text_entry("a", "1"), entry("a", b'V', b"")].concat();
    all.push(hostile(
        "a header twice",
        Properties::kind("echo").with_headers(&twice),
    ));
    let named = Properties::kind("echo").with_headers(&text_entry(b"\xff\x1b", "x"));
    all.push(hostile("a header's name in bytes", named).dies_of("header"));
    // All but the whole of the largest frame, so that no copy of it would be within.
    let largest = text_entry("large", vec![b'x'; 131_072 - 60]);
    let largest = Properties::kind("echo").with_headers(&largest);
    all.push(hostile("the largest header", largest).dies_of("too many to be copied"));
    let many: Vec<u8> = (0..1200)
        .flat_map(|number| text_entry(format!("header-{number}"), [b'x'; 92]))
        .collect();
    let many = Properties::kind("/").with_headers(&many);
    all.push(hostile("the most headers", many).dies_of("too many to be copied"));
    all
}

/// What the host and the broker write themselves, written by somebody else.
fn forgeries(queue: &str) -> Vec<Hostile> {
    let mut all = Vec::new();
    for name in [
        "scutwork-attempt",
        "scutwork-parked-since",
        "scutwork-on-trial",
        "scutwork-notify",
        "scutwork-dead-reason",
        "scutwork-dead-at",
        "scutwork-outcome",
        "x-delivery-count",
        "x-acquired-count",
        "x-death",
        "x-first-death-queue",
        "CC",
        "BCC",
    ] {
        let is_read_by_all = matches!(name, "scutwork-attempt" | "x-death");
        for (kind, value) in values(if is_read_by_all { DEEPEST } else { DEEP }) {
            let properties = Properties::kind("echo").with_headers(&entry(name, kind, &value));
            let shown = format!("forged {name} of type {} {}", char::from(kind), value.len());
            all.push(hostile(shown, properties));
        }
    }
    let future = 4_000_000_000_000_u64.to_be_bytes();
    let parked = entry("scutwork-parked-since", b'l', &future);
    let parked = Properties::kind("nowhere").with_headers(&parked);
    all.push(hostile("parked in the future", parked).dies_of("nowhere"));
    // A copy that kept this would come back to the queue from every settlement.
    let again = [b"S", &long(queue.as_bytes())[..]].concat();
    for name in ["CC", "BCC"] {
        let properties = Properties::kind("/").with_headers(&entry(name, b'A', &long(&again)));
        all.push(hostile(name, properties).dies_of("plugin name"));
    }
    all
}
