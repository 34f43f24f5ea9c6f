//! [`Grants`]: what one plugin is called with and may reach beside its task, the same for every run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::command::CommandSettings;
use super::http::Origin;
use super::secret::Secrets;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// What a plugin may reach. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// How it is called if it is a WASI command.
    pub command: CommandSettings,
    /// Its environment variables.
    pub environment: Vec<(String, Value)>,
    /// Its directories.
    pub directories: Vec<Directory>,
    /// Where its requests may go.
    pub origins: Vec<Origin>,
}

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// This text.
    Plain(String),
    /// What is in this file when a run begins, without the line's end. It is a secret: it is not kept
    /// here, and nobody but the guest is shown it.
    Secret(PathBuf),
}

/// A directory of the host's that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where the guest sees it.
    pub guest: String,
    /// Where it is.
    pub host: PathBuf,
    /// What the guest may do in it.
    pub access: Access,
}

/// What a guest may do in a directory, and in all that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and list.
    Read,
    /// Create, change and remove too.
    Write,
}

/// A run's variables, and which of their values are not to be shown.
pub(super) struct Environment {
    pub(super) variables: Vec<(String, String)>,
    pub(super) secrets: Secrets,
}

impl Grants {
    /// Whether what is granted is there.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in &self.environment {
            if let Value::Secret(path) = value {
                read_secret(path).map_err(|error| format!("env.{name}: {error}"))?;
            }
        }
        for Directory { guest, host, .. } in &self.directories {
            fs::read_dir(host).map_err(|error| {
                format!(
                    "files.{guest:?}: the directory {} cannot be read: {error}; create it, or give \
                     the worker's user access",
                    host.display()
                )
            })?;
        }
        Ok(())
    }

    /// The variables of a run that begins now.
    pub(super) fn environment(&self) -> Result<Environment, String> {
        let mut environment = Environment {
            variables: Vec::with_capacity(self.environment.len()),
            secrets: Secrets::default(),
        };
        for (name, value) in &self.environment {
            let value = match value {
                Value::Plain(text) => text.clone(),
                Value::Secret(path) => {
                    let secret =
                        read_secret(path).map_err(|error| format!("env.{name}: {error}"))?;
                    environment.secrets.add(&secret);
                    secret
                }
            };
            environment.variables.push((name.clone(), value));
        }
        Ok(environment)
    }
}

/// Reads a secret's file. An error never quotes it.
fn read_secret(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        format!(
            "the file {shown} cannot be read: {error}; create it, or give the worker's user access"
        )
    };
    // Opening a named pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{shown} is no file; put the value into one"));
    }
    let mut text = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > MAX_SECRET {
        return Err(format!(
            "the file {shown} is over 64KiB, which is the most that a variable may have"
        ));
    }
    while text
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        text.pop();
    }
    match String::from_utf8(text) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(format!(
            "the file {shown} is not text in UTF-8, and a variable is text"
        )),
    }
}
