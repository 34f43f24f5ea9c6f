//! What every broker promises of a message that was settled.

use std::time::{Duration, UNIX_EPOCH};

use scutwork::broker::{Message, Record, ReplyTo, SettleError};
use scutwork::settlement::Settlement;

use super::{Subject, asking, assert_nothing_before_a_marker, bare, dead, done, next, retry};
use crate::support::waiting::await_depth;

pub(super) async fn a_released_message_comes_back_with_its_record_and_no_crash(
    subject: &impl Subject,
) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let record = Record {
        attempt: 2,
        parked_since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        on_trial: false,
    };
    let released = Settlement::Release {
        after: Duration::ZERO,
        record: record.clone(),
    };
    next(&mut consumer).await.settle(released).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((&again.message.record, again.crashes), (&record, 0));
    again.settle(done()).await.unwrap();
}

pub(super) async fn a_dead_letter_leaves_the_queue_and_is_counted(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("hopeless")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
    await_depth(&*broker, &queue, |depth| {
        (depth.ready, depth.delayed, depth.dead) == (0, 0, 1) && depth.running.unwrap_or(0) == 0
    })
    .await;
}

pub(super) async fn settling_after_the_hold_was_lost_says_so(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let held = next(&mut consumer).await;
    consumer.stop().await;
    broker.close().await;
    assert!(!held.hold.is_live());
    let settled = held.settle(done()).await;
    assert!(matches!(settled, Err(SettleError::Lost)), "{settled:?}");
}

pub(super) async fn what_identifies_a_task_survives_retries(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let replies = broker.replies().await.unwrap();
    let message = Message {
        id: Some("task-7".into()),
        plugin: Some("thumb".into()),
        content_type: Some("image/png".into()),
        headers: vec![("traceparent".into(), "00-1-2-01".into())],
        ..asking(&*replies, "c-7", false)
    };
    replies
        .publish(&queue, vec![message.clone()], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let mut addresses = Vec::new();
    for attempt in 1..4 {
        let delivery = next(&mut consumer).await;
        // A broker may put an address of its own in the place of the one that was asked for.
        let address = delivery.message.reply_to.as_ref().unwrap().address.clone();
        let expected = Message {
            record: Record {
                attempt,
                ..Record::default()
            },
            reply_to: Some(ReplyTo {
                address: addresses.last().unwrap_or(&address).clone(),
                correlation_id: Some("c-7".into()),
                notify: false,
            }),
            ..message.clone()
        };
        assert_eq!(delivery.message, expected);
        addresses.push(address);
        delivery
            .settle(retry(Duration::ZERO, attempt + 1))
            .await
            .unwrap();
    }
    next(&mut consumer).await.settle(done()).await.unwrap();
}

pub(super) async fn a_made_up_id_stays_with_the_task(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("nameless")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let mut delivery = next(&mut consumer).await;
    assert_eq!(delivery.message.id, None);
    delivery.message.id = Some("made-up".into());
    delivery.settle(retry(Duration::ZERO, 2)).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.message.id.as_deref(), Some("made-up"));
    again.settle(done()).await.unwrap();
}
