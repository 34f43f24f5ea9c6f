//! How a message lies in columns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Row, Statement, params};

use crate::broker::{Message, Record, ReplyTo};

/// The columns of `message` in the order in which [`message`] reads them.
pub(super) const MESSAGE_COLUMNS: &str = "m.plugin, m.task, m.content_type, m.headers, m.reply_to, m.correlation_id, m.notify, m.priority, m.body";

/// Fills the statement that inserts [`MESSAGE_COLUMNS`].
pub(super) fn insert_message(
    statement: &mut Statement<'_>,
    message: &Message,
) -> rusqlite::Result<i64> {
    let reply_to = message.reply_to.as_ref();
    statement.insert(params![
        message.plugin,
        message.id,
        message.content_type,
        encode_headers(&message.headers),
        reply_to.map(|reply_to| &reply_to.address),
        reply_to.and_then(|reply_to| reply_to.correlation_id.as_ref()),
        reply_to.is_some_and(|reply_to| reply_to.notify),
        message.priority,
        &message.body[..],
    ])
}

/// Reads [`MESSAGE_COLUMNS`] that begin at column `first`.
pub(super) fn message(row: &Row<'_>, first: usize, record: Record) -> rusqlite::Result<Message> {
    let headers = match row.get_ref(first + 3)?.as_blob_or_null()? {
        None => Vec::new(),
        Some(blob) => decode_headers(blob),
    };
    let correlation_id: Option<String> = row.get(first + 5)?;
    let notify = row.get(first + 6)?;
    Ok(Message {
        plugin: row.get(first)?,
        id: row.get(first + 1)?,
        content_type: row.get(first + 2)?,
        headers,
        body: Bytes::from(row.get::<_, Vec<u8>>(first + 8)?),
        reply_to: row
            .get::<_, Option<String>>(first + 4)?
            .map(|address| ReplyTo {
                address,
                correlation_id,
                notify,
            }),
        priority: row.get(first + 7)?,
        record,
        unreadable: None,
    })
}

/// Reads attempt, parked_since and on_trial, which begin at column `first`.
pub(super) fn record(row: &Row<'_>, first: usize) -> rusqlite::Result<Record> {
    Ok(Record {
        attempt: row.get(first)?,
        parked_since: row.get::<_, Option<i64>>(first + 1)?.map(from_millis),
        on_trial: row.get(first + 2)?,
    })
}

/// Milliseconds since 1970, as every time in the file is.
pub(super) fn to_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The reverse of [`to_millis`].
pub(super) fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn encode_headers(headers: &[(String, String)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::new();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        blob.extend_from_slice(&(text.len() as u64).to_le_bytes());
        blob.extend_from_slice(text.as_bytes());
    }
    Some(blob)
}

/// A blob that ends early, which only damage makes, gives the headers before the damage.
fn decode_headers(mut blob: &[u8]) -> Vec<(String, String)> {
    let mut take_text = || {
        let (size, rest) = blob.split_first_chunk::<8>()?;
        let size = usize::try_from(u64::from_le_bytes(*size)).ok()?;
        let (text, rest) = rest.split_at_checked(size)?;
        blob = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    std::iter::from_fn(|| Some((take_text()?, take_text()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order_with_empty_and_repeated_ones() {
        let headers: Vec<(String, String)> = [("b", "2"), ("a", ""), ("", "ä\0"), ("b", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let blob = encode_headers(&headers).unwrap();
        assert_eq!(decode_headers(&blob), headers);
        assert_eq!(encode_headers(&[]), None);
    }

    #[test]
    fn damaged_headers_end_early_and_never_panic() {
        let blob = encode_headers(&[("name".into(), "value".into())]).unwrap();
        for end in 0..blob.len() {
            assert_eq!(decode_headers(&blob[..end]), []);
        }
        assert_eq!(decode_headers(&[0xff; 16]), []);
    }
}
