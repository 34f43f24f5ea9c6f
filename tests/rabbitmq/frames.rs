//! How much a worker says to the broker: frames for each batch, not for each task.

use scutwork::broker::{Broker, Delivery};

use super::{connect, done, message, queue};
use crate::support::network::Network;
use crate::support::rabbitmq::shared_url;

const BATCH: u16 = 32;
const BATCHES: u64 = 20;

/// What a batch needs: one ack of all up to a tag, and the question by whose answer it is known to have
/// arrived.
const NEEDED: u64 = 2;

/// What else is said meanwhile: looks at the mark of a pause, heartbeats.
const ASIDE: u64 = 20;

#[tokio::test]
async fn a_batch_that_is_settled_in_any_order_takes_two_frames() {
    let queue = queue("frames");
    let network = Network::to(&shared_url());
    let direct = connect(&shared_url()).await;
    let through = connect(&network.url("/%2f")).await;
    let mut consumer = through.consume(&queue, BATCH).await.unwrap();
    let mut before = None;
    for _ in 0..BATCHES {
        let messages = (0..BATCH).map(|n| message(n.to_string())).collect();
        direct.publish(&queue, messages, None).await.unwrap();
        let mut batch: Vec<Delivery> = Vec::new();
        while batch.len() < usize::from(BATCH) {
            let room = usize::from(BATCH) - batch.len();
            consumer.next(&mut batch, room).await;
        }
        before.get_or_insert_with(|| network.frames_to_broker());
        let settling = batch.into_iter().rev().map(|one| one.settle(done()));
        for settled in futures_util::future::join_all(settling).await {
            settled.unwrap();
        }
    }
    let said = network.frames_to_broker() - before.unwrap();
    eprintln!("{said} frames for {BATCHES} batches of {BATCH}");
    assert!(said >= BATCHES, "{said} frames: they are not counted");
    assert!(
        said <= NEEDED * BATCHES + ASIDE,
        "{said} frames for {BATCHES} batches"
    );
}
