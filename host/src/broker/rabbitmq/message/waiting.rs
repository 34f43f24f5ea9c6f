//! What a message in a delay queue says of its times.

use std::time::SystemTime;

use anyhow::Result;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::renew;
use super::values::{millis, number, time};
use crate::broker::rabbitmq::delay::Stay;

const LEAVES: &str = "scutwork-leaves";
const DUE: &str = "scutwork-due";

/// The times of a message in a delay queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker::rabbitmq) struct Waiting {
    /// When it leaves this one.
    pub(in crate::broker::rabbitmq) leaves: SystemTime,
    /// When it goes to the task queue.
    pub(in crate::broker::rabbitmq) due: SystemTime,
}

/// The properties with which a message waits in a delay queue.
pub(in crate::broker::rabbitmq) fn put_off(
    properties: BasicProperties,
    stay: Stay,
) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(LEAVES.into(), AMQPValue::LongLongInt(millis(stay.leaves)));
    headers.insert(DUE.into(), AMQPValue::LongLongInt(millis(stay.due)));
    properties.with_headers(headers)
}

/// What a message in a delay queue says of its times. None: somebody else put it there.
pub(in crate::broker::rabbitmq) fn waiting(properties: &BasicProperties) -> Option<Waiting> {
    let table = properties.headers().as_ref()?.inner();
    Some(Waiting {
        leaves: table.get(LEAVES).and_then(number).map(time)?,
        due: table.get(DUE).and_then(number).map(time)?,
    })
}

/// The properties with which what waited goes to the next delay queue, or to the task queue.
pub(in crate::broker::rabbitmq) fn passed_on(
    original: &BasicProperties,
    stay: Option<Stay>,
) -> Result<BasicProperties> {
    let renewed = renew(original)?;
    let mut headers = FieldTable::default();
    for (name, value) in renewed.headers().iter().flatten() {
        if !matches!(name.as_str(), LEAVES | DUE) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let properties = renewed.with_headers(headers);
    Ok(match stay {
        Some(stay) => put_off(properties, stay),
        None => properties,
    })
}
