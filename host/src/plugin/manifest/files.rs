//! The section `[files]`: the host's directories, and where the plugin sees them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error};

use crate::sandbox::grants::{Access, Directory};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    path: PathBuf,
    #[serde(default)]
    access: AskedAccess,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AskedAccess {
    #[default]
    Read,
    Write,
}

pub(super) fn directories<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Directory>, D::Error> {
    let asked = BTreeMap::<String, Asked>::deserialize(deserializer)?;
    asked
        .into_iter()
        .map(|(guest, asked)| check(guest, asked).map_err(D::Error::custom))
        .collect()
}

fn check(guest: String, asked: Asked) -> Result<Directory, String> {
    let is_whole = guest == "/"
        || guest.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
        });
    if !is_whole {
        return Err(format!(
            "{guest:?} is not where a plugin can see a directory; write for example \"/data\""
        ));
    }
    if !asked.path.is_absolute() {
        return Err(format!(
            "{} is not a path from the root; write it whole",
            asked.path.display()
        ));
    }
    Ok(Directory {
        guest,
        host: asked.path,
        access: match asked.access {
            AskedAccess::Read => Access::Read,
            AskedAccess::Write => Access::Write,
        },
    })
}
