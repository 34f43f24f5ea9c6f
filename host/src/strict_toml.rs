//! TOML read strictly: an unknown key or a wrong value is refused with its file, its line and the way
//! out. It knows nothing of what is configured.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, de};

/// Why a file cannot be used: `thumb.toml:3: unknown key limits.memroy; did you mean limits.memory?`
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.place())]
pub struct TomlError {
    /// The file that was read.
    pub file: PathBuf,
    /// The line that is wrong, from 1. None: the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl TomlError {
    /// The file, and the line where there is one: `thumb.toml:3`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }
}

/// Reads a whole file's text; `file` is for the errors alone.
///
/// Every struct in `T` must be `#[serde(deny_unknown_fields)]`: that is what makes a key unknown.
///
/// # Errors
/// For the first thing that is wrong.
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| TomlError {
        file: file.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        message: explain(text, &error),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// What is wrong, with the key's full path.
fn explain(text: &str, error: &de::Error) -> String {
    let message = error.message();
    let path = match (DeTable::parse(text), error.span()) {
        (Ok(table), Some(span)) => path_to(table.get_ref(), &span),
        // No tree or no place in it: the text is not TOML, and no key is to blame.
        (Err(_), _) | (_, None) => Vec::new(),
    };
    match UnknownKey::from_serde(message) {
        Some(unknown) => unknown.explain(&path),
        None if path.is_empty() => message.to_owned(),
        None => format!("{}: {message}", path.join(".")),
    }
}

/// The keys that lead to the place of an error, which is either a key or within a value.
fn path_to(table: &DeTable<'_>, place: &Range<usize>) -> Vec<String> {
    for (key, value) in table.iter() {
        if key.span() == *place {
            return vec![key.get_ref().to_string()];
        }
        let below = path_within(value, place);
        if !below.is_empty() || covers(&value.span(), place) {
            return std::iter::once(key.get_ref().to_string())
                .chain(below)
                .collect();
        }
    }
    Vec::new()
}

fn path_within(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> Vec<String> {
    match value.get_ref() {
        DeValue::Table(table) => path_to(table, place),
        DeValue::Array(items) => items
            .iter()
            .map(|item| path_within(item, place))
            .find(|path| !path.is_empty())
            .unwrap_or_default(),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => Vec::new(),
    }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// A key that nobody reads, and those that somebody would.
struct UnknownKey<'a> {
    key: &'a str,
    known: Vec<&'a str>,
}

impl<'a> UnknownKey<'a> {
    /// Reads serde's wording, the only form in which it tells: "unknown field `a`, expected one of
    /// `b`, `c`". Were it to change, the error would be shown as serde words it.
    fn from_serde(message: &'a str) -> Option<Self> {
        let (key, rest) = message
            .strip_prefix("unknown field `")?
            .split_once("`, ")
            .unwrap_or((message, ""));
        let known = rest.split('`').skip(1).step_by(2).collect();
        Some(UnknownKey { key, known })
    }

    fn explain(&self, path: &[String]) -> String {
        let parents = &path[..path.len().saturating_sub(1)];
        let full = |key: &str| {
            let mut path = parents.to_vec();
            path.push(key.to_owned());
            path.join(".")
        };
        let unknown = format!("unknown key {}", full(self.key));
        match self.nearest() {
            Some(nearest) => format!("{unknown}; did you mean {}?", full(nearest)),
            None if self.known.is_empty() => unknown,
            None => format!("{unknown}; known are {}", self.known.join(", ")),
        }
    }

    fn nearest(&self) -> Option<&'a str> {
        /// Below this similarity, of 0 to 1, a suggestion would only distract.
        const LIKENESS: f64 = 0.75;
        self.known
            .iter()
            .map(|known| (strsim::jaro_winkler(self.key, known), *known))
            .filter(|(likeness, _)| *likeness >= LIKENESS)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        limits: Limits,
        queues: Vec<Queue>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        #[serde(deserialize_with = "crate::units::size")]
        memory: Option<u64>,
        #[serde(deserialize_with = "crate::units::duration")]
        timeout: Option<std::time::Duration>,
        depth: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Queue {
        #[expect(dead_code, reason = "only its absence is tested")]
        name: String,
    }

    fn refusal(text: &str) -> String {
        parse::<File>(text, Path::new("thumb.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_key_that_was_meant() {
        assert_eq!(
            refusal("[limits]\n\nmemroy = 1\n"),
            "thumb.toml:3: unknown key limits.memroy; did you mean limits.memory?"
        );
        assert_eq!(
            refusal("[limit]\nmemory = 1\n"),
            "thumb.toml:1: unknown key limit; did you mean limits?"
        );
        assert_eq!(
            refusal("limits = { memory = 1, zzz = 2 }"),
            "thumb.toml:1: unknown key limits.zzz; known are memory, timeout, depth"
        );
        assert_eq!(
            refusal("[[queues]]\nname = \"a\"\n[[queues]]\nnmae = \"b\"\n"),
            "thumb.toml:4: unknown key queues.nmae; did you mean queues.name?"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_and_what_would_be_right() {
        assert_eq!(
            refusal("[limits]\nmemory = \"lots\"\n"),
            "thumb.toml:2: limits.memory: \"lots\" is not a size; write for example 64MiB, 1MB or 4096"
        );
        assert_eq!(
            refusal("limits.depth = 300"),
            "thumb.toml:1: limits.depth: invalid value: integer `300`, expected u8"
        );
        assert_eq!(
            refusal("[limits]\ntimeout = 5\n"),
            "thumb.toml:2: limits.timeout: 5 has no unit; write for example \"5s\" or \"5m\""
        );
        assert!(
            refusal("\n[[queues]]\n").starts_with("thumb.toml:2: queues: missing field `name`")
        );
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        assert!(refusal("[limits]\nmemory = \n").starts_with("thumb.toml:2: "));
        assert!(refusal("[limits\n").starts_with("thumb.toml:1: "));
        assert!(refusal("a = 1\na = 2\n").starts_with("thumb.toml:2: "));
    }
}
