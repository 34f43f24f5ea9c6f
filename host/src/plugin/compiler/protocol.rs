//! What a process and its compiling child say to each other: one line of JSON each way, and the bytes
//! that it announces.

use std::io::{self, BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sandbox::PrepareError;
use crate::sandbox::compile::Target;

/// The longest line, in bytes. A refusal holds the compiler's words, and names from the plugin.
const LONGEST: u64 = 1 << 20;

/// To the child, with the plugin behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) target: Target,
    /// Address space, in bytes.
    pub(super) memory: u64,
    /// CPU time, in seconds.
    pub(super) seconds: u64,
    /// The plugin's size, in bytes. Fewer say that the parent is gone.
    pub(super) size: u64,
}

/// From the child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The native code is behind it, of this size in bytes.
    Compiled { size: u64 },
    /// It is no plugin.
    Refused(PrepareError),
    /// The memory did not suffice, and the compiler noticed.
    OutOfMemory,
    /// The compiler panicked.
    Panicked(String),
}

pub(super) fn send(to: &mut impl Write, line: &impl Serialize, body: &[u8]) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    to.write_all(&text)?;
    to.write_all(body)?;
    to.flush()
}

/// Reads the line.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut text = Vec::new();
    from.take(LONGEST).read_until(b'\n', &mut text)?;
    if !text.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Reads what is behind the line, all of it.
pub(super) fn receive_body(from: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(size).read_to_end(&mut body)?;
    if body.len() as u64 != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received_and_what_is_cut_short_is_not() {
        let mut sent = Vec::new();
        let refused = PrepareError::NotWasm {
            hint: "; it is a page".into(),
        };
        send(&mut sent, &Answer::Refused(refused.clone()), b"body").unwrap();
        let mut whole = sent.as_slice();
        let answer: Answer = receive(&mut whole).unwrap();
        assert!(matches!(answer, Answer::Refused(error) if error == refused));
        assert_eq!(receive_body(&mut whole, 4).unwrap(), b"body");
        for length in 0..sent.len() - 5 {
            assert!(receive::<Answer>(&mut &sent[..length]).is_err());
        }
        assert!(receive_body(&mut b"bod".as_slice(), 4).is_err());
    }
}
