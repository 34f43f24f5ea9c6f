//! [`Repair`]: what a producer wrote into a frame, made such that the client library can read it. It
//! knows bytes and no messages.
//!
//! The library ends the connection at text that is not UTF-8, at a header frame over the negotiated
//! size and, by the end of its stack, at tables nested thousands deep. The broker carries all three, and
//! would deliver such a message again and again. What is wrong is replaced in place, and such that it
//! can be told afterwards: by [`SUBSTITUTE`] in a text, or by the header [`SHED`].

use std::collections::BTreeSet;
use std::ops::Range;

/// ASCII's own sign for a character that could not be carried; one for each byte that is not UTF-8.
pub(super) const SUBSTITUTE: char = '\u{1a}';
const SUB: u8 = SUBSTITUTE as u8;

/// The header of a message that had more headers than a copy of it could carry.
pub(super) const SHED: &str = "scutwork-shed-headers";

/// How the names of the host's own headers begin.
const OURS: &[u8] = b"scutwork-";

/// What a frame has before its payload (type, channel, size) and with the octet after it.
pub(super) const HEAD: usize = 7;
const AROUND: usize = HEAD + 1;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;

/// What a header frame must leave of the largest frame for what a retry or a dead letter adds to it.
const ROOM: usize = 16 << 10;

/// How deep tables and arrays may lie in each other.
const DEPTH: u32 = 64;

/// A content header's class, weight and body size.
const BEFORE_PROPERTIES: usize = 12;

/// AMQP's properties in their order, the first at the highest bit of the flags.
const PROPERTIES: [Property; 14] = {
    use Property::{Octets, Table, Text};
    [
        Text,
        Text,
        Table,
        Octets(1),
        Octets(1),
        Text,
        Text,
        Text,
        Text,
        Octets(8),
        Text,
        Text,
        Text,
        Text,
    ]
};
const HAS_HEADERS: u16 = 1 << 13;
const HAS_TYPE: u16 = 1 << 5;

#[derive(Clone, Copy)]
enum Property {
    Text,
    Table,
    Octets(usize),
}

/// Repairs the frames of one connection.
pub(super) struct Repair {
    /// The largest header frame that is left as it is.
    most: usize,
}

/// What cannot be read as what it should be.
#[derive(Debug)]
struct Broken;

/// A place in a frame, before which all is in order.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Repair {
    pub(super) fn new() -> Self {
        Repair { most: usize::MAX }
    }

    /// Repairs a whole frame that is a method or a content header, and gives its length then, which
    /// is never more.
    pub(super) fn frame(&mut self, frame: &mut [u8]) -> usize {
        let end = frame.len() - 1;
        match frame[0] {
            METHOD => {
                // What is too short is the library's to refuse: no producer writes methods.
                let _ = self.method(&mut frame[HEAD..end]);
                frame.len()
            }
            HEADER if frame.len() >= AROUND + BEFORE_PROPERTIES + 2 => {
                let headers = properties(&mut frame[HEAD + BEFORE_PROPERTIES..end]);
                match headers {
                    Some(table) if frame.len() > self.most => {
                        let start = HEAD + BEFORE_PROPERTIES;
                        shed(frame, start + table.start..start + table.end, self.most)
                    }
                    Some(_) | None => frame.len(),
                }
            }
            _ => frame.len(),
        }
    }

    fn method(&mut self, arguments: &mut [u8]) -> Result<(), Broken> {
        let mut cursor = Cursor::new(arguments);
        match (cursor.short()?, cursor.short()?) {
            // connection.tune: channel-max, frame-max, heartbeat. No frame-max is no bound.
            (10, 30) => {
                cursor.skip(2)?;
                self.most = match usize::try_from(cursor.long()?) {
                    Ok(0) | Err(_) => usize::MAX,
                    Ok(largest) => largest.saturating_sub(ROOM).max(largest / 2),
                };
            }
            // connection.close and channel.close: code, text.
            (10, 50) | (20, 40) => {
                cursor.skip(2)?;
                cursor.text()?;
            }
            // basic.return: code, text, exchange, routing key.
            (60, 50) => {
                cursor.skip(2)?;
                cursor.texts(3)?;
            }
            // basic.deliver: consumer tag, delivery tag, redelivered, exchange, routing key.
            (60, 60) => {
                cursor.text()?;
                cursor.skip(9)?;
                cursor.texts(2)?;
            }
            // basic.get-ok: delivery tag, redelivered, exchange, routing key, count.
            (60, 71) => {
                cursor.skip(9)?;
                cursor.texts(2)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Repairs properties from their flags on, and gives where the headers' entries lie, if there are any.
fn properties(bytes: &mut [u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(bytes);
    match cursor.properties() {
        Ok(headers) if cursor.at == cursor.bytes.len() => headers,
        Ok(_) | Err(Broken) => {
            blot_out(bytes);
            None
        }
    }
}

/// Makes bytes that are no properties into a `type` that no plugin has and, where they are too many
/// for that, a header that holds them.
fn blot_out(bytes: &mut [u8]) {
    let length = bytes.len();
    let (flags, rest) = bytes.split_at_mut(2);
    let flag = |flags: &mut [u8], value: u16| flags.copy_from_slice(&value.to_be_bytes());
    match rest.len() {
        0 => flag(flags, 0),
        texts @ 1..=256 => {
            flag(flags, HAS_TYPE);
            rest.fill(SUB);
            rest[0] = u8::try_from(texts - 1).unwrap_or(u8::MAX);
        }
        more => {
            flag(flags, HAS_HEADERS | HAS_TYPE);
            let table = more - 4 - 2;
            rest[..4].copy_from_slice(&length_bytes(table));
            let flattened = flatten(&mut rest[4..4 + table]);
            debug_assert!(flattened.is_ok(), "{length} bytes hold an entry");
            rest[4 + table..].copy_from_slice(&[1, SUB]);
        }
    }
}

/// Makes bytes that are no table's entries into one entry.
fn flatten(entries: &mut [u8]) -> Result<(), Broken> {
    match entries.len() {
        0 => {}
        1 | 2 => return Err(Broken),
        short @ 3..=6 => {
            entries.fill(SUB);
            entries[0] = u8::try_from(short - 2).unwrap_or_default();
            entries[short - 1] = b'V';
        }
        long => {
            entries[..3].copy_from_slice(&[1, SUB, b'x']);
            entries[3..7].copy_from_slice(&length_bytes(long - 7));
        }
    }
    Ok(())
}

/// Drops the largest of a frame's headers until it is within `most`, notes that, and gives its new
/// length. What the host wrote goes last: a dead letter without its cause would be of no use. `headers`
/// is where their entries lie, and those are in order.
fn shed(frame: &mut [u8], headers: Range<usize>, most: usize) -> usize {
    let mut cursor = Cursor::new(&mut frame[..headers.end]);
    cursor.at = headers.start;
    let mut entries = Vec::new();
    while cursor.at < headers.end {
        let start = cursor.at;
        if cursor.text().and_then(|()| cursor.value(0)).is_err() {
            break;
        }
        entries.push(start..cursor.at);
    }
    let note_length = 1 + SHED.len() + 1;
    let mut excess = (frame.len() + note_length).saturating_sub(most);
    let mut by_size = entries.clone();
    by_size.sort_by_key(|entry| {
        let is_ours = frame[entry.start + 1..entry.end].starts_with(OURS);
        (is_ours, std::cmp::Reverse(entry.len()))
    });
    let mut dropped = BTreeSet::new();
    for entry in by_size {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(entry.len());
        dropped.insert(entry.start);
    }
    let mut to = headers.start;
    for entry in entries {
        if !dropped.contains(&entry.start) {
            let length = entry.len();
            frame.copy_within(entry, to);
            to += length;
        }
    }
    if headers.end - to < note_length {
        return frame.len();
    }
    frame[to] = u8::try_from(SHED.len()).unwrap_or_default();
    frame[to + 1..to + 1 + SHED.len()].copy_from_slice(SHED.as_bytes());
    frame[to + 1 + SHED.len()] = b'V';
    to += note_length;
    let length = frame.len() - (headers.end - to);
    frame.copy_within(headers.end.., to);
    frame[headers.start - 4..headers.start].copy_from_slice(&length_bytes(to - headers.start));
    frame[3..HEAD].copy_from_slice(&length_bytes(length - AROUND));
    length
}

fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Puts [`SUBSTITUTE`] in the place of every byte that is not UTF-8.
fn substitute(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let (_, rest) = text.split_at_mut(error.valid_up_to());
        let (bad, after) = rest.split_at_mut(error.error_len().unwrap_or(rest.len()));
        bad.fill(SUB);
        text = after;
    }
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&mut [u8], Broken> {
        let end = self.at.checked_add(count).ok_or(Broken)?;
        let taken = self.bytes.get_mut(self.at..end).ok_or(Broken)?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Broken> {
        self.take(count).map(|_| ())
    }

    fn octet(&mut self) -> Result<u8, Broken> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<u16, Broken> {
        Ok(u16::from_be_bytes([self.octet()?, self.octet()?]))
    }

    fn long(&mut self) -> Result<u32, Broken> {
        let [a, b] = self.short()?.to_be_bytes();
        let [c, d] = self.short()?.to_be_bytes();
        Ok(u32::from_be_bytes([a, b, c, d]))
    }

    /// A short string.
    fn text(&mut self) -> Result<(), Broken> {
        let length = self.octet()?;
        let text = self.take(length.into())?;
        substitute(text);
        Ok(())
    }

    fn texts(&mut self, count: u32) -> Result<(), Broken> {
        (0..count).try_for_each(|_| self.text())
    }

    fn properties(&mut self) -> Result<Option<Range<usize>>, Broken> {
        let flags = self.short()?;
        let mut headers = None;
        for (position, property) in PROPERTIES.into_iter().enumerate() {
            if flags & (1 << 15 >> position) == 0 {
                continue;
            }
            match property {
                Property::Text => self.text()?,
                Property::Octets(count) => self.skip(count)?,
                Property::Table => headers = Some(self.headers()?),
            }
        }
        Ok(headers)
    }

    /// The table of headers, and where its entries lie.
    fn headers(&mut self) -> Result<Range<usize>, Broken> {
        let length = self.length()?;
        let start = self.at;
        let within = start..start + length;
        if self.entries(within.end, true, 0).is_err() {
            flatten(&mut self.bytes[within.clone()])?;
            self.at = within.end;
        }
        Ok(within)
    }

    /// The length of what follows, all of which is here.
    fn length(&mut self) -> Result<usize, Broken> {
        let length = usize::try_from(self.long()?).map_err(|_| Broken)?;
        if length > self.bytes.len() - self.at {
            return Err(Broken);
        }
        Ok(length)
    }

    /// Values up to `end`, each with a name before it or none.
    fn entries(&mut self, end: usize, are_named: bool, depth: u32) -> Result<(), Broken> {
        while self.at < end {
            if are_named {
                self.text()?;
            }
            self.value(depth)?;
        }
        if self.at == end { Ok(()) } else { Err(Broken) }
    }

    fn value(&mut self, depth: u32) -> Result<(), Broken> {
        let kind_at = self.at;
        match self.octet()? {
            b'V' => Ok(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let length = self.length()?;
                self.skip(length)
            }
            kind @ (b'F' | b'A') => {
                let end = self.length()? + self.at;
                if depth >= DEPTH || self.entries(end, kind == b'F', depth + 1).is_err() {
                    // Bytes have the same form and need no sense.
                    self.bytes[kind_at] = b'x';
                    self.at = end;
                }
                Ok(())
            }
            _ => Err(Broken),
        }
    }
}

#[cfg(test)]
mod tests;
