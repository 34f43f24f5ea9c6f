//! Workers in the test's own process.

use scutwork::name::QueueName;
use scutwork::settlement::Parking;
use scutwork::task::TaskRules;
use scutwork::worker::WorkerSettings;
use scutwork::worker::prefetch::Prefetch;

use super::program::PATIENCE;

/// Of a worker that takes from one queue, and holds as many deliveries as it has slots.
pub(crate) fn settings(queue: QueueName, slots: usize) -> WorkerSettings {
    WorkerSettings {
        name: "tested".to_owned(),
        queues: vec![queue],
        slots,
        prefetch: Prefetch::Fixed(slots.try_into().unwrap()),
        grace: PATIENCE,
        rules: TaskRules {
            default_plugin: "dots".parse().unwrap(),
            max_payload: 1 << 20,
        },
        parking: Parking {
            every: PATIENCE,
            ttl: PATIENCE,
        },
    }
}
