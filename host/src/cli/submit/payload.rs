//! Where payloads come from: the command line, a file or stdin, whole, repeated or by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;

use super::super::{Exit, Stopped};

/// What was given as the payload.
pub(in super::super) enum Payload {
    /// All of it, in memory.
    Whole(Bytes),
    /// A source whose lines are payloads of their own.
    Lines(Box<dyn BufRead + Send>),
}

/// Payloads, one a task.
pub(super) enum Payloads {
    Repeated { body: Bytes, left: u64 },
    Lines(Box<dyn BufRead + Send>),
}

impl Payload {
    /// All of what an argument means, as one payload.
    pub(in super::super) fn whole(argument: &str) -> Result<Bytes, Stopped> {
        let mut whole = Vec::new();
        let mut source = source(argument)?;
        source
            .read_to_end(&mut whole)
            .map_err(|error| unreadable(argument, &error))?;
        Ok(whole.into())
    }

    /// Reads `@FILE` and `-`; anything else is the payload itself.
    pub(in super::super) fn parse(argument: &str, each_line: bool) -> Result<Payload, Stopped> {
        if each_line {
            return Ok(Payload::Lines(source(argument)?));
        }
        Payload::whole(argument).map(Payload::Whole)
    }

    /// The payload's size, as far as it has been read.
    pub(super) fn known_size(&self) -> u64 {
        match self {
            Payload::Whole(body) => body.len() as u64,
            Payload::Lines(_) => 0,
        }
    }

    pub(super) fn repeated(self, count: u64) -> Result<Payloads, Stopped> {
        match self {
            Payload::Whole(_) if count == 0 => Err(Stopped::usage("--count 0 submits nothing")),
            Payload::Whole(body) => Ok(Payloads::Repeated { body, left: count }),
            Payload::Lines(source) => Ok(Payloads::Lines(source)),
        }
    }
}

impl Payloads {
    /// How many there will be, where that is known.
    pub(super) fn total(&self) -> Option<u64> {
        match self {
            Payloads::Repeated { left, .. } => Some(*left),
            Payloads::Lines(_) => None,
        }
    }

    /// The next one, without its line end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Stopped> {
        match self {
            Payloads::Repeated { left: 0, .. } => Ok(None),
            Payloads::Repeated { body, left } => {
                *left -= 1;
                Ok(Some(body.clone()))
            }
            Payloads::Lines(source) => {
                let mut line = Vec::new();
                let read = source.read_until(b'\n', &mut line);
                if read.map_err(|error| unreadable("the lines", &error))? == 0 {
                    return Ok(None);
                }
                if line.last() == Some(&b'\n') {
                    line.pop();
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                }
                Ok(Some(line.into()))
            }
        }
    }
}

fn source(argument: &str) -> Result<Box<dyn BufRead + Send>, Stopped> {
    Ok(match (argument, argument.strip_prefix('@')) {
        ("-", _) => Box::new(BufReader::new(std::io::stdin())),
        (_, Some(path)) => Box::new(BufReader::new(open(Path::new(path))?)),
        (text, None) => Box::new(std::io::Cursor::new(text.as_bytes().to_vec())),
    })
}

fn open(path: &Path) -> Result<File, Stopped> {
    File::open(path).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Usage,
        };
        Stopped::new(
            exit,
            anyhow::anyhow!("cannot open the payload file {}: {error}", path.display()),
        )
    })
}

fn unreadable(what: &str, error: &std::io::Error) -> Stopped {
    Stopped::usage(format!("cannot read the payload from {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Vec<String> {
        let mut payloads = Payload::Lines(Box::new(text.as_bytes()))
            .repeated(1)
            .unwrap();
        let mut all = Vec::new();
        while let Some(line) = payloads.next().unwrap() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn each_line_is_a_payload_without_its_line_end() {
        assert_eq!(lines("a\r\n\nb"), ["a", "", "b"]);
        assert_eq!(lines("a\n"), ["a"]);
        assert!(lines("").is_empty());
    }

    #[test]
    fn a_payload_file_that_is_not_there_is_named() {
        let stopped = Payload::parse("@/no/such/file", false).err().unwrap();
        assert_eq!(stopped.exit, Exit::NotFound);
        assert!(stopped.reason.to_string().contains("/no/such/file"));
    }
}
