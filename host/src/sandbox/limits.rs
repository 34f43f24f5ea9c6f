//! [`Limits`]: what one run may use.

use std::time::Duration;

/// What one run may use. Reaching any of them ends that run and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories and tables of the task together, in bytes.
    pub memory: u64,
    /// Time that a processor spends on it.
    pub cpu: Duration,
    /// Time by the wall clock, sleeping and host calls included.
    pub timeout: Duration,
    /// What it returns, in bytes.
    pub output: u64,
}

impl Default for Limits {
    /// What a plugin has without a manifest.
    fn default() -> Self {
        Limits {
            memory: 64 << 20,
            cpu: Duration::from_secs(10),
            timeout: Duration::from_secs(5 * 60),
            output: 1 << 20,
        }
    }
}

impl Limits {
    /// The most that any manifest can set, unless the operator says otherwise.
    pub const CEILING: Limits = Limits {
        memory: 1 << 30,
        cpu: Duration::from_secs(60 * 60),
        timeout: Duration::from_secs(24 * 60 * 60),
        output: 64 << 20,
    };

    /// Each limit, or the ceiling's where that is lower.
    #[must_use]
    pub fn under(self, ceiling: &Limits) -> Limits {
        Limits {
            memory: self.memory.min(ceiling.memory),
            cpu: self.cpu.min(ceiling.cpu),
            timeout: self.timeout.min(ceiling.timeout),
            output: self.output.min(ceiling.output),
        }
    }
}
