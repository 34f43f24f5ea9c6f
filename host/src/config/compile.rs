//! `[compile]` of scutwork.toml: the bounds that compiling a plugin is held to, and where what is
//! compiled is kept.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::plugin::compiler::CompileSettings;
use crate::plugin::compiler::cache::CacheSettings;
use crate::units::{self, show_duration, show_size};

/// Less, and nothing at all could be compiled.
const LEAST_MEMORY: u64 = 256 << 20;
/// What the kernel can count.
const LEAST_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompileSection {
    #[serde(default, deserialize_with = "units::size")]
    memory: Option<u64>,
    #[serde(default, deserialize_with = "units::duration")]
    time: Option<Duration>,
    #[serde(default, deserialize_with = "units::size")]
    max_file: Option<u64>,
    cache: Option<CacheWord>,
    #[serde(default, deserialize_with = "units::size")]
    cache_size: Option<u64>,
    #[serde(default, deserialize_with = "units::duration")]
    cache_age: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a directory, or false")]
enum CacheWord {
    Directory(PathBuf),
    Switch(bool),
}

impl CompileSection {
    pub(super) fn resolve(self) -> Result<CompileSettings, ConfigError> {
        let default = CompileSettings::default();
        let memory = self.memory.unwrap_or(default.memory);
        let time = self.time.unwrap_or(default.time);
        if memory < LEAST_MEMORY {
            return Err(ConfigError::Bad(format!(
                "compile.memory {} is too little for any plugin; set {} or more",
                show_size(memory),
                show_size(LEAST_MEMORY)
            )));
        }
        if time < LEAST_TIME {
            return Err(ConfigError::Bad(format!(
                "compile.time {} is too short to be counted; set {} or more",
                show_duration(time),
                show_duration(LEAST_TIME)
            )));
        }
        let directory = match self.cache {
            Some(CacheWord::Switch(false)) => None,
            Some(CacheWord::Directory(directory)) => Some(directory),
            Some(CacheWord::Switch(true)) | None => usual_directory(|name| env::var_os(name)),
        };
        Ok(CompileSettings {
            memory,
            time,
            max_file: self.max_file.unwrap_or(default.max_file),
            cache: directory.map(|directory| {
                let usual = CacheSettings::new(directory);
                CacheSettings {
                    max_size: self.cache_size.unwrap_or(usual.max_size),
                    max_age: self.cache_age.unwrap_or(usual.max_age),
                    ..usual
                }
            }),
            ..default
        })
    }
}

/// Where systemd keeps caches for this service, or else where this user keeps them. None: nowhere.
fn usual_directory(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then_some(path)
    };
    absolute("CACHE_DIRECTORY")
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("scutwork")))
        .or_else(|| Some(absolute("HOME")?.join(Path::new(".cache/scutwork"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_system_keeps_them() {
        let usual = |known: &[(&str, &str)]| {
            usual_directory(|name| {
                let (_, value) = known.iter().find(|(known, _)| *known == name)?;
                Some((*value).into())
            })
        };
        let home = ("HOME", "/home/ann");
        assert_eq!(usual(&[home]), Some("/home/ann/.cache/scutwork".into()));
        let xdg = ("XDG_CACHE_HOME", "/fast");
        assert_eq!(usual(&[home, xdg]), Some("/fast/scutwork".into()));
        let systemd = ("CACHE_DIRECTORY", "/var/cache/scutwork");
        assert_eq!(usual(&[home, xdg, systemd]), Some(systemd.1.into()));
        assert_eq!(usual(&[("XDG_CACHE_HOME", "here"), home]), usual(&[home]));
        assert_eq!(usual(&[]), None);
    }
}
