//! [`Task`]: a message decoded and checked, ready to run.

use bytes::Bytes;
use uuid::timestamp::context::ThreadLocalContext;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::broker::Message;
use crate::name::{BadName, PluginName};

/// One piece of work. Everything in it has been checked; the payload has not been looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The same through every retry.
    pub id: String,
    /// Which plugin it is for.
    pub plugin: PluginName,
    /// Any bytes.
    pub payload: Bytes,
    /// What the producer says the payload is.
    pub content_type: Option<String>,
    /// The producer's headers.
    pub headers: Vec<(String, String)>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What a message must keep to.
#[derive(Clone, Debug)]
pub struct TaskRules {
    /// The plugin for messages that name none.
    pub default_plugin: PluginName,
    /// The largest payload, in bytes.
    pub max_payload: u64,
}

/// Why a message is no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTask {
    /// The broker's side could not read it all.
    #[error("{0}")]
    Unreadable(String),
    /// It names a plugin that cannot exist.
    #[error("{0}")]
    PluginName(#[from] BadName),
    /// Its payload is over the limit.
    #[error(
        "payload of {size} bytes is over the limit of {limit}; raise worker.max_payload, or send a reference to the data"
    )]
    PayloadTooLarge {
        /// The payload's size.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl Task {
    /// Makes a task of a message.
    ///
    /// A message without an id gets one here, written back to it, so that every copy made of it has
    /// the same.
    ///
    /// # Errors
    /// When nobody could make a task of it; trying again would not help.
    pub fn decode(message: &mut Message, rules: &TaskRules) -> Result<Task, BadTask> {
        let id = message.id.get_or_insert_with(new_id).clone();
        if let Some(why) = &message.unreadable {
            return Err(BadTask::Unreadable(why.clone()));
        }
        let plugin = match message.plugin.as_deref() {
            None => rules.default_plugin.clone(),
            Some(name) => name.parse()?,
        };
        let size = message.body.len() as u64;
        if size > rules.max_payload {
            return Err(BadTask::PayloadTooLarge {
                size,
                limit: rules.max_payload,
            });
        }
        Ok(Task {
            id,
            plugin,
            payload: message.body.clone(),
            content_type: message.content_type.clone(),
            headers: message.headers.clone(),
            attempt: message.record.attempt,
        })
    }
}

thread_local! {
    /// The library's own is one for all threads, behind a lock.
    static IDS: ContextV7 = const { ContextV7::new() };
}

/// A new task id: a UUIDv7, so that ids sort by the time they were made, to within a millisecond if several threads
/// make them.
pub fn new_id() -> String {
    let now = Timestamp::now(ThreadLocalContext::new(&IDS));
    Uuid::new_v7(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TaskRules {
        TaskRules {
            default_plugin: "dots".parse().unwrap(),
            max_payload: 10,
        }
    }

    #[test]
    fn a_bare_tutorial_message_reaches_the_default_plugin() {
        let mut message = Message {
            body: Bytes::from_static(b"Hello..."),
            ..Message::default()
        };
        let task = Task::decode(&mut message, &rules()).unwrap();
        assert_eq!((task.plugin.as_str(), task.attempt), ("dots", 1));
        assert_eq!(&task.payload[..], b"Hello...");
    }

    #[test]
    fn a_made_up_id_stays_with_the_message() {
        let mut message = Message::default();
        let first = Task::decode(&mut message, &rules()).unwrap().id;
        assert_eq!(Task::decode(&mut message, &rules()).unwrap().id, first);
        assert_eq!(Uuid::parse_str(&first).unwrap().get_version_num(), 7);
    }

    #[test]
    fn a_message_that_nobody_can_make_a_task_of_is_refused_with_the_reason() {
        let mut hostile = Message {
            plugin: Some("../../etc/passwd".into()),
            ..Message::default()
        };
        let error = Task::decode(&mut hostile, &rules()).unwrap_err();
        assert!(error.to_string().contains("../../etc/passwd"), "{error}");
        let mut huge = Message {
            body: vec![0; 11].into(),
            ..Message::default()
        };
        let error = Task::decode(&mut huge, &rules()).unwrap_err();
        assert_eq!(
            error,
            BadTask::PayloadTooLarge {
                size: 11,
                limit: 10
            }
        );
    }
}
