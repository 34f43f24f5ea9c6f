//! The section `[http]`: where the plugin's requests may go.

use serde::{Deserialize, Deserializer, de::Error};

use crate::sandbox::Origin;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AskedHttp {
    #[serde(deserialize_with = "origins")]
    pub(super) allow: Vec<Origin>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"https://api.example.com\", or { origin = \"http://db.internal\", private = true }"
)]
enum Asked {
    Public(String),
    Marked(Marked),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Marked {
    origin: String,
    #[serde(default)]
    private: bool,
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Origin>, D::Error> {
    let asked = Vec::<Asked>::deserialize(deserializer)?;
    asked
        .into_iter()
        .map(|asked| {
            match asked {
                Asked::Public(origin) => Origin::parse(&origin, false),
                Asked::Marked(Marked { origin, private }) => Origin::parse(&origin, private),
            }
            .map_err(D::Error::custom)
        })
        .collect()
}
