//! `[trust]` of scutwork.toml: whose signature plugins must bear.

use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, read_named};
use crate::plugin::trust::{Trust, TrustedKey};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustSection {
    /// Public keys, or files that hold one each.
    keys: Option<Vec<String>>,
}

impl TrustSection {
    pub(super) fn resolve(self) -> Result<Trust, ConfigError> {
        let Some(named) = self.keys else {
            return Ok(Trust::Anyone);
        };
        if named.is_empty() {
            return Err(ConfigError::Bad(
                "trust.keys names no key, so no plugin could be loaded; name one, or leave it out to load any"
                    .to_owned(),
            ));
        }
        let keys: Result<_, _> = named.iter().map(|key| read_key(key)).collect();
        Ok(Trust::Keys(keys?))
    }
}

fn read_key(named: &str) -> Result<TrustedKey, ConfigError> {
    if let Some(key) = TrustedKey::parse(named) {
        return Ok(key);
    }
    // Two bytes for the algorithm are what every key begins with, and no file that people name.
    if named.starts_with("RW") && !Path::new(named).exists() {
        return Err(ConfigError::Bad(format!(
            "trust.keys: {named} is not a whole minisign public key; copy the last line of minisign.pub"
        )));
    }
    let text = read_named(Path::new(named))?;
    TrustedKey::parse(&text).ok_or_else(|| {
        ConfigError::Bad(format!(
            "trust.keys: {named} holds no minisign public key; name the .pub file that `minisign -G` wrote"
        ))
    })
}
