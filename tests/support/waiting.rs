//! Waiting for what a queue counts, and judging what was due later.

use std::time::{Duration, Instant};

use scutwork::broker::{Broker, Depth};
use scutwork::name::QueueName;

use super::program::PATIENCE;

/// By how much a delay may be cut short (beside 2 %).
const TOLERANCE: Duration = Duration::from_secs(1);

/// Waits until the counts are as they should be; some brokers count a moment late.
pub(crate) async fn await_depth(
    broker: &dyn Broker,
    queue: &QueueName,
    is_right: impl Fn(&Depth) -> bool,
) {
    let started = Instant::now();
    loop {
        let depth = broker.depth(queue).await.unwrap();
        if depth.as_ref().is_some_and(&is_right) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{depth:?}");
        // Between two looks at something that gives no other sign.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What was put off so long since then comes now. How late it is is the machine's too, and only told.
pub(crate) fn assert_not_early(since: Instant, delay: Duration) {
    let waited = since.elapsed();
    let slack = TOLERANCE.max(delay / 50);
    assert!(
        waited + slack >= delay,
        "{waited:?} is too early for {delay:?}"
    );
    println!("a delay of {delay:?} took {waited:?}");
}
