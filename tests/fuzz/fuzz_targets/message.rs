//! Any texts as a message's properties.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scutwork::broker::Message;
use scutwork::name::PluginName;
use scutwork::task::{Task, TaskRules};

type Properties = (
    Option<String>,
    Option<String>,
    Option<String>,
    Vec<(String, String)>,
    Vec<u8>,
);

fuzz_target!(|properties: Properties| {
    let (id, plugin, content_type, headers, body) = properties;
    let mut message = Message {
        id,
        plugin,
        content_type,
        headers,
        body: body.into(),
        ..Message::default()
    };
    let rules = TaskRules {
        default_plugin: "dots".parse().expect("letters make a name"),
        max_payload: 1_000,
    };
    if let Ok(task) = Task::decode(&mut message, &rules) {
        assert!(task.plugin.as_str().parse::<PluginName>().is_ok());
        assert!(task.payload.len() <= 1_000);
    }
});
