//! Frames before their repair and after it, as the client library reads them.

use std::time::Instant;

use lapin::BasicProperties;
use lapin::protocol::basic::{Deliver, GetOk, Return, parse_properties};
use lapin::protocol::{AMQPClass, basic, parse_class};
use lapin::types::{AMQPValue, FieldTable};

use super::*;

const END: u8 = 0xce;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend(length_bytes(payload.len()));
    frame.extend(payload);
    frame.push(END);
    frame
}

/// A content header of a 5-byte body with these properties, from their flags on.
fn header(properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    payload.extend(properties);
    frame(HEADER, &payload)
}

fn repaired(mut frame: Vec<u8>, repair: &mut Repair) -> Vec<u8> {
    let length = repair.frame(&mut frame);
    frame.truncate(length);
    assert_eq!(frame.last(), Some(&END));
    assert_eq!(frame[3..HEAD], length_bytes(length - AROUND));
    frame
}

/// What the client library makes of properties after their repair.
fn read(properties: &[u8]) -> BasicProperties {
    read_frame(&repaired(header(properties), &mut Repair::new()))
}

fn read_frame(frame: &[u8]) -> BasicProperties {
    let properties = &frame[HEAD + BEFORE_PROPERTIES..frame.len() - 1];
    match parse_properties(properties) {
        Ok(([], read)) => read,
        other => panic!("{other:?} of {properties:02x?}"),
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], &length_bytes(bytes.len())[..], bytes].concat()
}

/// Properties with nothing but headers.
fn headers(entries: &[u8]) -> Vec<u8> {
    let table = &long(b'F', entries)[1..];
    [&HAS_HEADERS.to_be_bytes(), table].concat()
}

fn nested(kind: u8, levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        let name: &[u8] = if kind == b'F' { &[0] } else { &[] };
        value = long(kind, &[name, &value].concat());
    }
    value
}

fn written(properties: &BasicProperties) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 17];
    let into = bytes.as_mut_slice().into();
    let (_, length) = basic::gen_properties(properties)(into)
        .unwrap()
        .into_inner();
    let length = usize::try_from(length).unwrap();
    bytes.truncate(length);
    bytes
}

fn good() -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in [
        ("text", AMQPValue::LongString("wörld".into())),
        ("bytes", AMQPValue::ByteArray(vec![0xff, 0].into())),
        ("number", AMQPValue::LongLongInt(-1)),
        ("float", AMQPValue::Double(0.5)),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::Void].into())),
        ("table", AMQPValue::FieldTable(FieldTable::default())),
    ] {
        table.insert(name.into(), value);
    }
    BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_headers(table)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("çá".into())
        .with_message_id("019ab".into())
        .with_timestamp(7)
        .with_type("thumb".into())
        .with_app_id("tests".into())
}

#[test]
fn good_properties_are_left_as_they_are() {
    for properties in [BasicProperties::default(), good()] {
        let bytes = header(&written(&properties));
        assert_eq!(repaired(bytes.clone(), &mut Repair::new()), bytes);
    }
}

#[test]
fn each_byte_of_a_text_that_is_not_utf_8_is_substituted() {
    for (bytes, read) in [
        (&b"th\xffmb"[..], "th\u{1a}mb"),
        (b"\xff\xfe", "\u{1a}\u{1a}"),
        (b"a\xe2\x82", "a\u{1a}\u{1a}"),
        (b"\xc0\xaf\xc3\xa9", "\u{1a}\u{1a}\u{e9}"),
        (b"\xed\xa0\x80", "\u{1a}\u{1a}\u{1a}"),
    ] {
        let mut value = bytes.to_vec();
        substitute(&mut value);
        assert_eq!(std::str::from_utf8(&value).unwrap(), read);
    }
}

#[test]
fn a_text_that_is_not_utf_8_is_repaired_wherever_it_stands() {
    let bad = text(b"\xff");
    let flags: u16 = 1 << 15 | 1 << 14 | 1 << 10 | 1 << 9 | 1 << 8 | 1 << 7 | 0b1_1110 << 1;
    let mut properties = flags.to_be_bytes().to_vec();
    for _ in 0..6 {
        properties.extend(&bad);
    }
    for _ in 0..4 {
        properties.extend(&bad);
    }
    let read = self::read(&properties);
    let all = [
        read.content_type(),
        read.content_encoding(),
        read.correlation_id(),
        read.reply_to(),
        read.expiration(),
        read.message_id(),
        read.kind(),
        read.user_id(),
        read.app_id(),
        read.cluster_id(),
    ];
    for value in all {
        assert_eq!(value.as_ref().unwrap().as_str(), "\u{1a}");
    }
    let entries = [text(b"\xfe"), vec![b'V']].concat();
    let read = self::read(&headers(&entries));
    assert!(read.headers().as_ref().unwrap().contains_key("\u{1a}"));
}

#[test]
fn methods_are_readable_whatever_a_producer_chose_as_routing_key() {
    let tag = [0, 0, 0, 0, 0, 0, 0, 0xff];
    let names = [text(b"\xffx"), text(b"k\xfe")].concat();
    let deliver = [&[0, 60, 0, 60], &text(b"c")[..], &tag, &[0], &names].concat();
    let back = [&[0, 60, 0, 50, 1, 56], &text(b"\xff")[..], &names].concat();
    let got = [&[0, 60, 0, 71], &tag[..], &[0], &names, &[0, 0, 0, 1]].concat();
    for payload in [deliver, back, got] {
        let frame = repaired(frame(METHOD, &payload), &mut Repair::new());
        let (rest, method) = parse_class(&frame[HEAD..frame.len() - 1]).unwrap();
        assert!(rest.is_empty());
        let AMQPClass::Basic(method) = method else {
            panic!("{method:?}");
        };
        let (exchange, routing_key) = match method {
            basic::AMQPMethod::Deliver(Deliver {
                exchange,
                routing_key,
                ..
            })
            | basic::AMQPMethod::Return(Return {
                exchange,
                routing_key,
                ..
            })
            | basic::AMQPMethod::GetOk(GetOk {
                exchange,
                routing_key,
                ..
            }) => (exchange, routing_key),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (exchange.as_str(), routing_key.as_str()),
            ("\u{1a}x", "k\u{1a}")
        );
    }
}

#[test]
fn tables_too_deep_for_a_stack_become_bytes() {
    for kind in [b'F', b'A'] {
        // The fill of the largest frame: about 25,000 levels.
        let entries = [text(b"deep"), nested(kind, 20_000), text(b"b"), vec![b'V']].concat();
        let read = self::read(&headers(&entries));
        let table = read.headers().clone().unwrap();
        assert!(table.contains_key("b"));
        let mut value = &table.inner()["deep"];
        let mut levels = 0;
        loop {
            levels += 1;
            value = match value {
                AMQPValue::FieldTable(table) => &table.inner()[""],
                AMQPValue::FieldArray(array) => &array.as_slice()[0],
                AMQPValue::ByteArray(_) => break,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(levels, DEPTH + 1);
        let entries = [text(b"deep"), nested(kind, 50)].concat();
        let shallow = header(&headers(&entries));
        assert_eq!(repaired(shallow.clone(), &mut Repair::new()), shallow);
    }
}

#[test]
fn what_is_no_table_becomes_a_header_that_holds_it() {
    for length in 0..600 {
        let entries = vec![0xff; length];
        let read = self::read(&headers(&entries));
        let is_marked = read.kind().is_some()
            || read
                .headers()
                .iter()
                .flatten()
                .any(|(name, _)| name.as_str().contains(SUBSTITUTE));
        // One byte or two have no room for a table; the smallest names no one is blamed for.
        assert!(is_marked || length == 0, "{length}: {read:?}");
    }
    let entries = [
        text(b"a"),
        long(b'F', b"\xff\xff\xff\xff"),
        text(b"b"),
        vec![b'V'],
    ]
    .concat();
    let read = self::read(&headers(&entries));
    assert!(read.headers().as_ref().unwrap().contains_key("b"));
}

#[test]
fn headers_that_leave_no_room_for_a_copys_own_are_shed_largest_first() {
    let mut repair = Repair::new();
    let tune = [0, 10, 0, 30, 0, 0, 0, 2, 0, 0, 0, 0];
    repaired(frame(METHOD, &tune), &mut repair);
    assert_eq!(repair.most, 131_072 - ROOM);
    let mut entries = Vec::new();
    for number in 0..100_u8 {
        entries.extend(text(&[b'a' + number % 26, number]));
        entries.extend(long(b'S', &[b'x'; 1000]));
    }
    entries.extend(text(b"huge"));
    entries.extend(long(b'S', &[b'y'; 20_000]));
    entries.extend(text(b"scutwork-dead-error"));
    entries.extend(long(b'S', &[b'z'; 4096]));
    let mut properties = headers(&entries);
    properties[1] |= u8::try_from(HAS_TYPE).unwrap();
    properties.extend(text(b"thumb"));
    let bytes = repaired(header(&properties), &mut repair);
    assert!(bytes.len() <= repair.most, "{}", bytes.len());
    let read = read_frame(&bytes);
    let table = read.headers().clone().unwrap();
    assert!(table.contains_key(SHED) && !table.contains_key("huge"));
    assert!(table.contains_key("scutwork-dead-error"));
    assert_eq!(table.inner().len(), 102);
    assert_eq!(read.kind().as_ref().unwrap().as_str(), "thumb");
}

/// Seeded; the seed is in the message of a failure.
#[test]
fn whatever_a_frame_holds_the_client_library_can_read_it_after_the_repair() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let start = written(&good());
    for round in 0..200_000_u32 {
        let mut bytes = if random.bool() {
            (0..random.usize(2..80)).map(|_| random.u8(..)).collect()
        } else {
            start.clone()
        };
        for _ in 0..random.u32(0..6) {
            let at = random.usize(0..bytes.len());
            bytes[at] = *random
                .choice(&[0, 1, 5, 0x7f, 0x80, 0xff, b'F', b'A', b'S', b'x', b'V'])
                .unwrap();
        }
        bytes.truncate(random.usize(2..=bytes.len()));
        let told = format!("seed {seed} round {round}: {bytes:02x?}");
        let mut repair = Repair::new();
        if random.bool() {
            repair.most = 150;
        }
        let frame = repaired(header(&bytes), &mut repair);
        let properties = &frame[HEAD + BEFORE_PROPERTIES..frame.len() - 1];
        assert!(
            matches!(parse_properties(properties), Ok(([], _))),
            "{told}"
        );
        let again = repaired(frame.clone(), &mut repair);
        assert!(frame.len() > repair.most || again == frame, "{told}");
    }
}

/// Not a promise of a time: the figure is printed.
#[test]
fn good_frames_are_followed_at_little_cost() {
    let tag = [0, 0, 0, 0, 0, 0, 0, 9];
    let deliver = [
        &[0, 60, 0, 60],
        &text(b"amq.ctag-abcdefghijklmnopqrstuv")[..],
        &tag,
        &[0],
        &text(b""),
        &text(b"tasks"),
    ]
    .concat();
    let mut frames = [frame(METHOD, &deliver), header(&written(&good()))];
    let mut repair = Repair::new();
    const ROUNDS: u32 = 200_000;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for frame in &mut frames {
            let frame = std::hint::black_box(frame);
            assert_eq!(repair.frame(frame), frame.len());
        }
    }
    let each = began.elapsed() / ROUNDS;
    println!(
        "repair: {} ns for a message with 9 properties and 6 headers",
        each.as_nanos()
    );
}
