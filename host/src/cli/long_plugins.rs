//! [`LongPlugins`]: warns of plugins that may run for longer than RabbitMQ lets a task be unsettled, when a
//! worker starts and whenever one comes.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::doctor::consumer_timeout;
use crate::config::BrokerConfig;
use crate::event::{Event, Observer, PluginEvent};
use crate::plugin::{Plugin, Registry};

/// Listens for plugins that come.
#[derive(Clone)]
pub(super) struct LongPlugins {
    /// None: the broker has no such limit.
    limit: Option<Duration>,
    /// Once it is open. Weak, because the registry holds its observers.
    registry: Arc<OnceLock<Weak<Registry>>>,
}

impl LongPlugins {
    pub(super) fn new(broker: &BrokerConfig) -> Self {
        LongPlugins {
            limit: match broker {
                BrokerConfig::RabbitMq(options) => Some(options.consumer_timeout),
                BrokerConfig::Sqlite(_) => None,
            },
            registry: Arc::default(),
        }
    }

    /// Warns of those that are there, and from now on of those that come.
    pub(super) fn watch(&self, registry: &Arc<Registry>) {
        // There is one registry, and this is called once. First, so that none slips in between.
        let _ = self.registry.set(Arc::downgrade(registry));
        self.warn(&registry.list());
    }

    fn warn(&self, plugins: &[Arc<Plugin>]) {
        if let Some(limit) = self.limit
            && let Some((finding, fix)) = consumer_timeout::exceeded(limit, plugins)
        {
            tracing::warn!("{finding}; {fix}");
        }
    }
}

impl Observer for LongPlugins {
    fn observe(&self, event: &Event<'_>) {
        let Event::Plugin(PluginEvent::Added { name, .. } | PluginEvent::Replaced { name, .. }) =
            event
        else {
            return;
        };
        let registry = self.registry.get().and_then(Weak::upgrade);
        if let Some(plugin) = registry.and_then(|registry| registry.get(name)) {
            self.warn(&[plugin]);
        }
    }
}
