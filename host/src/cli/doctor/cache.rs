//! Whether native code can be kept, so that no start compiles again what one did before.

use super::finding::Finding;
use crate::plugin::compiler::CompileSettings;
use crate::units::show_size;

const CHECK: &str = "cache";

/// What there is to say of the cache.
pub(super) fn check(settings: &CompileSettings) -> Finding {
    let Some(cache) = &settings.cache else {
        return Finding::warn(
            CHECK,
            "what is compiled is not kept, so every start compiles again",
            "name a directory as compile.cache in scutwork.toml",
        );
    };
    match cache.survey() {
        Ok(survey) => Finding::ok(
            CHECK,
            format!(
                "{} plugins' code in {}: {:.1}MiB of {} at most{}",
                survey.entries,
                cache.directory.display(),
                survey.size as f64 / f64::from(1 << 20),
                show_size(cache.max_size),
                match survey.failures {
                    0 => String::new(),
                    failures => format!(
                        "; {failures} more could not be compiled, which is remembered for a day"
                    ),
                }
            ),
        ),
        Err(why) => Finding::warn(
            CHECK,
            format!("what is compiled cannot be kept, so every start compiles again: {why}"),
            "mend it, or name another directory as compile.cache in scutwork.toml",
        ),
    }
}
