//! What every broker promises of replies.

use std::time::Duration;

use scutwork::settlement::ReplyKind;

use super::{PATIENCE, Subject, asking, dead, done, next, reply, retry};

pub(super) async fn a_reply_reaches_its_requester_and_no_other(subject: &impl Subject) {
    let (requester, worker, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    let mut first = requester.replies().await.unwrap();
    let mut second = requester.replies().await.unwrap();
    first
        .publish(&queue, vec![asking(&*first, "one", false)], None)
        .await
        .unwrap();
    let mut consumer = worker.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    second
        .publish(&queue, vec![asking(&*second, "two", false)], None)
        .await
        .unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, first.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        heard,
        (Some("one".into()), reply(ReplyKind::Done, "output"))
    );
    let heard = tokio::time::timeout(PATIENCE, second.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        heard,
        (Some("two".into()), reply(ReplyKind::Dead, "bad-input: no"))
    );
}

pub(super) async fn a_retry_is_told_only_to_who_asked_to_hear_of_retries(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    for (notify, expected) in [
        (false, vec![ReplyKind::Done]),
        (true, vec![ReplyKind::Retry, ReplyKind::Done]),
    ] {
        let mut replies = broker.replies().await.unwrap();
        replies
            .publish(&queue, vec![asking(&*replies, "c", notify)], None)
            .await
            .unwrap();
        next(&mut consumer)
            .await
            .settle(retry(Duration::ZERO, 2))
            .await
            .unwrap();
        next(&mut consumer).await.settle(done()).await.unwrap();
        for kind in expected {
            let (_, heard) = tokio::time::timeout(PATIENCE, replies.next())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(heard.kind, kind);
        }
    }
}
