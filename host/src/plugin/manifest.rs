//! [`Manifest`]: what the operator grants a plugin and limits it to, from `thumb.toml` beside
//! `thumb.wasm`. What cannot be meant is refused here, so that nobody checks again.

mod env;
mod files;
mod http;
pub(crate) mod limits;
mod run;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use self::http::AskedHttp;
use self::limits::LimitsSection;
use self::run::AskedRun;
use crate::sandbox::Grants;
use crate::sandbox::grants::{Directory, Value};
use crate::sandbox::limits::Limits;
use crate::settlement::{Backoff, MAX_DELAY, RetryPolicy};
use crate::strict_toml::{self, TomlError};
use crate::units::{self, show_duration};

/// What one plugin may use, and what becomes of its failures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// What one run may use: as asked for, or the operator's ceiling where that is lower.
    pub limits: Limits,
    /// When a failed task runs again.
    pub retry: RetryPolicy,
    /// How many of its tasks may run at once in one worker. None: as many as the worker runs.
    pub concurrency: Option<NonZeroU32>,
    /// How it is called, and what it may reach.
    pub grants: Arc<Grants>,
    /// The sha256, in hex, of the only plugin that this manifest is for. None: any.
    pub sha256: Option<String>,
    /// Limits that were asked for and are above the ceiling, each as a sentence.
    pub lowered: Vec<String>,
}

impl Manifest {
    /// What a plugin without a manifest gets.
    pub fn without_file(ceiling: &Limits) -> Self {
        Manifest {
            limits: Limits::default().under(ceiling),
            ..Manifest::default()
        }
    }

    /// Reads a manifest's text; `file` is for the errors alone.
    ///
    /// # Errors
    /// For an unknown key or a value that cannot be meant, with its line. What is granted is not looked
    /// for: [`Grants::check`] does that.
    pub fn parse(text: &str, file: &Path, ceiling: &Limits) -> Result<Self, TomlError> {
        let sections: Sections = strict_toml::parse(text, file)?;
        Ok(Manifest {
            limits: sections.limits.over(Limits::default()).under(ceiling),
            retry: RetryPolicy {
                max_attempts: sections
                    .retry
                    .max_attempts
                    .map_or_else(|| RetryPolicy::default().max_attempts, NonZeroU32::get),
                backoff: sections.retry.backoff.0,
            },
            concurrency: sections.run.concurrency,
            sha256: sections.sha256,
            lowered: sections.limits.above(ceiling),
            grants: Arc::new(Grants {
                command: sections.run.command(),
                environment: sections.env,
                directories: sections.files,
                origins: sections.http.allow,
            }),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    #[serde(deserialize_with = "digest")]
    sha256: Option<String>,
    limits: LimitsSection,
    retry: AskedRetry,
    run: AskedRun,
    http: AskedHttp,
    #[serde(deserialize_with = "files::directories")]
    files: Vec<Directory>,
    #[serde(deserialize_with = "env::variables")]
    env: Vec<(String, Value)>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedRetry {
    #[serde(deserialize_with = "one_or_more")]
    max_attempts: Option<NonZeroU32>,
    backoff: CheckedBackoff,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedBackoff {
    #[serde(deserialize_with = "units::duration")]
    initial: Option<Duration>,
    factor: Option<f64>,
    #[serde(deserialize_with = "units::duration")]
    max: Option<Duration>,
    jitter: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(try_from = "AskedBackoff")]
struct CheckedBackoff(Backoff);

impl TryFrom<AskedBackoff> for CheckedBackoff {
    type Error = String;

    fn try_from(asked: AskedBackoff) -> Result<Self, String> {
        let default = Backoff::default();
        let backoff = Backoff {
            initial: asked.initial.unwrap_or(default.initial),
            factor: asked.factor.unwrap_or(default.factor),
            // A first wait above the usual maximum is meant, and so is each that follows.
            max: asked
                .max
                .unwrap_or_else(|| default.max.max(asked.initial.unwrap_or_default())),
            jitter: asked.jitter.unwrap_or(default.jitter),
        };
        if !backoff.factor.is_finite() || backoff.factor < 1.0 {
            return Err(format!(
                "factor {} would not let the waits grow; write 1.0 or more",
                backoff.factor
            ));
        }
        if !(0.0..=1.0).contains(&backoff.jitter) {
            return Err(format!(
                "jitter {} is not a share; write 0.0 to 1.0",
                backoff.jitter
            ));
        }
        if backoff.max > MAX_DELAY {
            return Err(format!(
                "no wait is longer than {}; lower initial and max",
                show_duration(MAX_DELAY)
            ));
        }
        if backoff.initial > backoff.max {
            return Err(format!(
                "initial {} is longer than max {}",
                show_duration(backoff.initial),
                show_duration(backoff.max)
            ));
        }
        Ok(CheckedBackoff(backoff))
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u32::try_from(number)
        .ok()
        .and_then(NonZeroU32::new)
        .map(Some)
        .ok_or_else(|| {
            D::Error::custom(format!("{number} is too few or too many; write 1 or more"))
        })
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?.to_ascii_lowercase();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(D::Error::custom(
            "not a sha256, which has 64 hexadecimal digits; take the one that `sha256sum` prints",
        ));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Origin;
    use crate::sandbox::command::{CommandSettings, ExitCodes};
    use crate::sandbox::grants::Access;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("thumb.toml"), &Limits::CEILING)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_manifest_is_as_good_as_none() {
        assert_eq!(parse(""), Ok(Manifest::without_file(&Limits::CEILING)));
    }

    #[test]
    fn everything_that_can_be_set_is_taken() {
        let manifest = parse(
            r#"
            sha256 = "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
            [limits]
            memory = "128MiB"
            cpu = "20s"
            timeout = "10m"
            output = 4096
            log_lines = 0
            log_bytes = "1KiB"
            handles = 10
            random = 32
            http_requests = 3
            http_body = "2KiB"
            http_timeout = "4s"
            [retry]
            max_attempts = 7
            backoff = { initial = "1s", factor = 3, max = "1m", jitter = 0 }
            [run]
            concurrency = 8
            args = ["-c", ""]
            content_type = "text/html"
            exit = { done = [1], retry = [111], reject = [0] }
            [http]
            allow = ["https://api.example.com", { origin = "http://db.internal", private = true }]
            [files]
            "/data" = { path = "/srv/thumbs" }
            "/out" = { path = "/srv/out", access = "write" }
            [env]
            API_KEY = { file = "/run/secrets/api_key" }
            REGION = "eu"
            "#,
        );
        assert_eq!(
            manifest,
            Ok(Manifest {
                limits: Limits {
                    memory: 128 << 20,
                    cpu: Duration::from_secs(20),
                    timeout: Duration::from_secs(600),
                    output: 4096,
                    log_lines: 0,
                    log_bytes: 1 << 10,
                    handles: 10,
                    random: 32,
                    http_requests: 3,
                    http_body: 2 << 10,
                    http_timeout: Duration::from_secs(4),
                },
                retry: RetryPolicy {
                    max_attempts: 7,
                    backoff: Backoff {
                        initial: Duration::from_secs(1),
                        factor: 3.0,
                        max: Duration::from_secs(60),
                        jitter: 0.0,
                    },
                },
                concurrency: NonZeroU32::new(8),
                grants: Arc::new(Grants {
                    command: CommandSettings {
                        args: vec!["-c".into(), String::new()],
                        content_type: Some("text/html".into()),
                        exit: ExitCodes {
                            done: [1].into(),
                            retry: [111].into(),
                            reject: [0].into(),
                        },
                    },
                    environment: vec![
                        (
                            "API_KEY".into(),
                            Value::Secret("/run/secrets/api_key".into()),
                        ),
                        ("REGION".into(), Value::Plain("eu".into())),
                    ],
                    directories: vec![
                        Directory {
                            guest: "/data".into(),
                            host: "/srv/thumbs".into(),
                            access: Access::Read,
                        },
                        Directory {
                            guest: "/out".into(),
                            host: "/srv/out".into(),
                            access: Access::Write,
                        },
                    ],
                    origins: vec![
                        Origin::parse("https://api.example.com", false).unwrap(),
                        Origin::parse("http://db.internal", true).unwrap(),
                    ],
                }),
                sha256: Some("ab".repeat(32)),
                lowered: Vec::new(),
            })
        );
    }

    #[test]
    fn what_is_over_the_ceiling_is_lowered_and_said() {
        let ceiling = Limits {
            memory: 32 << 20,
            ..Limits::CEILING
        };
        let text =
            "[limits]\nmemory = \"2GiB\"\ncpu = \"1s\"\ntimeout = \"48h\"\nhandles = 4000000";
        let manifest = Manifest::parse(text, Path::new("thumb.toml"), &ceiling).unwrap();
        assert_eq!(manifest.limits.memory, 32 << 20);
        assert_eq!(manifest.limits.cpu, Duration::from_secs(1));
        assert_eq!(
            manifest.lowered,
            [
                "limits.memory 2GiB is over the operator's ceiling; runs are held to 32MiB",
                "limits.timeout 2days is over the operator's ceiling; runs are held to 1day",
                "limits.handles 4000000 is over the operator's ceiling; runs are held to 100000",
            ]
        );
    }

    #[test]
    fn a_default_over_the_ceiling_is_lowered_without_a_word() {
        let ceiling = Limits {
            memory: 1 << 20,
            ..Limits::CEILING
        };
        let manifest = Manifest::parse("", Path::new("thumb.toml"), &ceiling).unwrap();
        assert_eq!(manifest.limits.memory, 1 << 20);
        assert_eq!(manifest.lowered, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        let nonsense = [
            (
                "[retry]\nmax_attempts = 0",
                ":2: retry.max_attempts: 0 is too few",
            ),
            (
                "[retry]\nmax_attempts = -1",
                ":2: retry.max_attempts: -1 is too few",
            ),
            (
                "[run]\nconcurrency = 0",
                ":2: run.concurrency: 0 is too few",
            ),
            ("[limits]\nmemory = 0", ":2: limits.memory: nothing runs"),
            (
                "[limits]\nmemory = \"-1MiB\"",
                ":2: limits.memory: \"-1MiB\" is not a size",
            ),
            ("[limits]\ncpu = \"0s\"", ":2: limits.cpu: nothing runs"),
            (
                "[limits]\ntimeout = \"soon\"",
                ":2: limits.timeout: \"soon\" is not a duration",
            ),
            (
                "[retry]\nbackoff = { factor = 0.5 }",
                ":2: retry.backoff: factor 0.5",
            ),
            (
                "[retry]\nbackoff = { factor = nan }",
                ":2: retry.backoff: factor NaN",
            ),
            (
                "[retry]\nbackoff = { factor = inf }",
                ":2: retry.backoff: factor inf",
            ),
            (
                "[retry]\nbackoff = { jitter = 1.1 }",
                ":2: retry.backoff: jitter 1.1",
            ),
            (
                "[retry]\nbackoff = { jitter = -0.1 }",
                ":2: retry.backoff: jitter -0.1",
            ),
            (
                "[retry]\nbackoff = { jitter = nan }",
                ":2: retry.backoff: jitter NaN",
            ),
            (
                "[retry]\nbackoff = { max = \"31d\" }",
                ":2: retry.backoff: no wait is longer",
            ),
            (
                "[retry]\nbackoff = { initial = \"2s\", max = \"1s\" }",
                ":2: retry.backoff: initial 2s",
            ),
            ("sha256 = \"abc\"", ":1: sha256: not a sha256"),
            (
                "[run]\nexit = { done = [3], retry = [3] }",
                ":2: run.exit: exit code 3 cannot mean two things",
            ),
            (
                "[run]\nargs = [\"\\u0000\"]",
                ":2: run.args: no argument can hold",
            ),
            (
                "[run]\ncontent_type = \"\"",
                ":2: run.content_type: that is no content type",
            ),
            (
                "[http]\nallow = [\"https://example.com/v1\"]",
                ":2: http.allow: \"https://example.com/v1\" names more than an origin",
            ),
            (
                "[http]\nalow = []",
                ":2: unknown key http.alow; did you mean http.allow?",
            ),
            (
                "[http]\nallow = [1]",
                ":2: http.allow: expected \"https://api.example.com\", or",
            ),
            (
                "[files]\n\"data\" = { path = \"/srv\" }",
                ":1: files: \"data\" is not where",
            ),
            (
                "[files]\n\"/data/..\" = { path = \"/srv\" }",
                ":1: files: \"/data/..\" is not where",
            ),
            (
                "[files]\n\"/data\" = { path = \"srv\" }",
                ":1: files: srv is not a path from the root",
            ),
            (
                "[files]\n\"/data\" = { path = \"/srv\", acces = \"write\" }",
                ":2: unknown key files./data.acces; did you mean files./data.access?",
            ),
            (
                "[env]\nSCUTWORK_ID = \"1\"",
                ":1: env: SCUTWORK_ID: names that begin",
            ),
            ("[env]\nKEY = 1", ":2: env.KEY: expected a text, or { file"),
            (
                "[env]\nKEY = { file = \"key\" }",
                ":1: env: KEY: key is not a path from the root",
            ),
            (
                "[limits]\nmemroy = 1",
                ":2: unknown key limits.memroy; did you mean limits.memory?",
            ),
        ];
        for (text, expected) in nonsense {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("thumb.toml{expected}")),
                "{text:?} gave {error:?}"
            );
        }
    }

    #[test]
    fn a_long_first_wait_raises_the_usual_maximum() {
        let manifest = parse("[retry]\nbackoff = { initial = \"2h\" }").unwrap();
        assert_eq!(manifest.retry.backoff.max, Duration::from_secs(2 * 60 * 60));
    }
}
