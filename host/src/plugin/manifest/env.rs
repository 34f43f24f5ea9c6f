//! The section `[env]`: variables, and secrets from files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error};

use crate::sandbox::command::TASK_VARIABLES;
use crate::sandbox::grants::Value;

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or { file = \"/path/to/it\" }")]
enum Asked {
    Plain(String),
    Secret(Secret),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    file: PathBuf,
}

pub(super) fn variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, Value)>, D::Error> {
    let asked = BTreeMap::<String, Asked>::deserialize(deserializer)?;
    asked
        .into_iter()
        .map(|(name, asked)| check(name, asked).map_err(D::Error::custom))
        .collect()
}

fn check(name: String, asked: Asked) -> Result<(String, Value), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} cannot be the name of a variable"));
    }
    if name.starts_with(TASK_VARIABLES) {
        return Err(format!(
            "{name}: names that begin with {TASK_VARIABLES} are for the task's own variables"
        ));
    }
    let value = match asked {
        Asked::Plain(text) if text.contains('\0') => {
            return Err(format!("{name}: no variable can hold a zero byte"));
        }
        Asked::Plain(text) => Value::Plain(text),
        Asked::Secret(Secret { file }) if !file.is_absolute() => {
            return Err(format!(
                "{name}: {} is not a path from the root; write it whole",
                file.display()
            ));
        }
        Asked::Secret(Secret { file }) => Value::Secret(file),
    };
    Ok((name, value))
}
