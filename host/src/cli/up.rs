//! `scutwork up`: the embedded queue and a worker, until stopped.

use super::{Exit, Stopped, worker};
use crate::config::{BrokerConfig, Config};

/// Runs the command.
pub(super) async fn up(config: Config) -> Result<Exit, Stopped> {
    match &config.broker {
        BrokerConfig::Sqlite(_) => worker::worker(config).await,
        BrokerConfig::RabbitMq(_) => Err(Stopped::usage(
            "up runs on the embedded queue; for a broker use `scutwork worker`, or leave out --broker",
        )),
    }
}
