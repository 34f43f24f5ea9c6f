//! What every broker promises, tested on each of them.
//!
//! A test's name is a guarantee. A broker joins by a [`Subject`] and one line of [`on_broker!`].

mod dead_letters;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use scutwork::broker::{
    Broker, Consumer, Delivery, Depth, Message, NoticeSink, Part, Record, Replies, ReplyTo,
    SettleError,
};
use scutwork::name::QueueName;
use scutwork::settlement::{DeadLetter, Reply, ReplyKind, Settlement};

use self::dead_letters::{
    a_dead_letter_shows_its_message_and_its_cause,
    a_dead_letter_that_was_retried_elsewhere_is_not_retried_twice,
    a_pass_that_is_dropped_half_way_loses_nothing, a_queue_that_nobody_made_has_no_dead_letters,
    a_retried_dead_letter_starts_again_with_its_id_and_its_new_body,
    looking_at_dead_letters_leaves_them_as_they_were,
    passes_at_the_same_time_each_see_every_dead_letter,
    ten_thousand_dead_letters_are_read_in_pages_and_put_back,
    what_is_not_settled_stays_dead_and_nothing_else_does,
};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// By how much a delay may be cut short (beside 2 %).
const TOLERANCE: Duration = Duration::from_secs(1);

/// By how much it may be late here, where other tests want the processors too.
const LATENESS: Duration = Duration::from_secs(5);

/// A store to test on.
#[async_trait]
pub(crate) trait Subject: Send + Sync + Sized {
    /// A fresh store, or fresh names on a shared one. Says once what it is and of which version.
    async fn start() -> Self;

    /// One more broker on the same store, as another process would have it.
    async fn connect(&self) -> Arc<dyn Broker>;

    /// A queue that nobody has used.
    fn queue(&self) -> QueueName;
}

/// Says what the tests run on, once a broker, past the test harness, which hides what passing tests print.
pub(crate) fn announce(broker: &'static str, version: impl FnOnce() -> String) {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(broker) {
        // Nothing depends on anybody listening.
        let _ = writeln!(
            std::io::stderr(),
            "the contract is tested on {broker} {}",
            version()
        );
    }
}

macro_rules! on_broker {
    ($name:ident, $subject:ty, [$($test:ident),* $(,)?]) => {
        mod $name {
            use super::Subject;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let subject = <$subject as Subject>::start().await;
                    tokio::time::timeout(super::PATIENCE * 4, super::$test(&subject))
                        .await
                        .expect("the guarantee holds in time");
                }
            )*
        }
    };
}

/// The list of guarantees, for one broker.
macro_rules! contract {
    ($name:ident, $subject:ty) => {
        on_broker!(
            $name,
            $subject,
            [
                a_published_message_is_delivered_once_and_unchanged,
                a_message_waits_on_a_queue_that_nobody_has_opened,
                a_task_that_is_done_is_gone_for_good,
                an_unsettled_message_goes_to_another_when_its_holder_goes_and_counts_a_crash,
                a_released_message_comes_back_with_its_record_and_no_crash,
                a_retry_comes_back_after_its_delay_and_not_before,
                a_delayed_message_is_due_in_time,
                a_dead_letter_leaves_the_queue_and_is_counted,
                a_reply_reaches_its_requester_and_no_other,
                a_retry_is_told_only_to_who_asked_to_hear_of_retries,
                two_consumers_share_a_queue_and_no_message_goes_to_both,
                prefetch_bounds_the_unsettled,
                stopping_gives_back_what_was_not_handed_out,
                ten_thousand_messages_through_two_consumers_all_arrive,
                settling_after_the_hold_was_lost_says_so,
                what_identifies_a_task_survives_retries,
                a_made_up_id_stays_with_the_task,
                a_cancelled_next_has_taken_nothing,
                two_queues_do_not_mix,
                a_queue_that_nobody_made_has_no_depth,
                a_paused_queue_hands_out_nothing_until_it_is_resumed,
                a_pause_is_seen_by_brokers_that_come_later,
                what_was_handed_out_before_a_pause_can_be_settled,
                a_purge_removes_the_part_that_was_named_and_counts_it,
                a_queue_that_nobody_made_has_no_dead_letters,
                a_dead_letter_shows_its_message_and_its_cause,
                looking_at_dead_letters_leaves_them_as_they_were,
                a_retried_dead_letter_starts_again_with_its_id_and_its_new_body,
                what_is_not_settled_stays_dead_and_nothing_else_does,
                a_pass_that_is_dropped_half_way_loses_nothing,
                passes_at_the_same_time_each_see_every_dead_letter,
                ten_thousand_dead_letters_are_read_in_pages_and_put_back,
                a_dead_letter_that_was_retried_elsewhere_is_not_retried_twice,
            ]
        );
    };
}

contract!(sqlite, crate::sqlite::SqliteSubject);
contract!(rabbitmq_3, crate::rabbitmq::RabbitMqSubject<3>);
contract!(rabbitmq_4, crate::rabbitmq::RabbitMqSubject<4>);

fn bare(body: impl Into<Vec<u8>>) -> Message {
    Message {
        body: body.into().into(),
        ..Message::default()
    }
}

fn numbered(count: u32) -> Vec<Message> {
    (0..count).map(|number| bare(number.to_string())).collect()
}

fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.body)
        .unwrap()
        .parse()
        .unwrap()
}

fn reply(kind: ReplyKind, body: &'static str) -> Reply {
    Reply {
        kind,
        task: "task-1".into(),
        attempt: 1,
        content_type: Some("text/plain".into()),
        body: body.into(),
    }
}

fn done() -> Settlement {
    Settlement::Done {
        reply: reply(ReplyKind::Done, "output"),
    }
}

fn retry(after: Duration, attempt: u32) -> Settlement {
    Settlement::Retry {
        after,
        record: Record {
            attempt,
            ..Record::default()
        },
        reply: reply(ReplyKind::Retry, "not yet"),
    }
}

fn dead() -> Settlement {
    Settlement::Dead {
        letter: DeadLetter {
            reason: "rejected".into(),
            code: Some("bad-input".into()),
            error: "bad-input: no".into(),
            attempts: 1,
            plugin: Some("dots".into()),
            digest: None,
            worker: "w1".into(),
            at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        },
        reply: reply(ReplyKind::Dead, "bad-input: no"),
    }
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let mut into = Vec::new();
    tokio::time::timeout(PATIENCE, consumer.next(&mut into, 1))
        .await
        .expect("a delivery comes");
    assert_eq!(into.len(), 1);
    into.remove(0)
}

/// Takes `count` deliveries, however they are cut.
async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut into = Vec::new();
    while into.len() < count {
        let missing = count - into.len();
        tokio::time::timeout(PATIENCE, consumer.next(&mut into, missing))
            .await
            .expect("deliveries come");
    }
    into
}

/// Nothing else is on the queue: a marker published last is the first to come, whoever takes it.
async fn assert_nothing_before_a_marker(
    subject: &dyn Broker,
    queue: &QueueName,
    consumer: &mut Box<dyn Consumer>,
) {
    subject
        .publish(queue, vec![bare("marker")], None)
        .await
        .unwrap();
    let marker = next(consumer).await;
    assert_eq!(&marker.message.body[..], b"marker");
    marker.settle(done()).await.unwrap();
}

/// Waits until the counts are as they should be; some brokers count a moment late.
async fn await_depth(broker: &dyn Broker, queue: &QueueName, is_right: impl Fn(&Depth) -> bool) {
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

fn assert_in_time(started: Instant, delay: Duration) {
    let waited = started.elapsed();
    let slack = TOLERANCE.max(delay / 50);
    assert!(
        waited + slack >= delay,
        "{waited:?} is too early for {delay:?}"
    );
    assert!(
        waited <= delay + LATENESS,
        "{waited:?} is too late for {delay:?}"
    );
    println!("a delay of {delay:?} took {waited:?}");
}

async fn a_published_message_is_delivered_once_and_unchanged(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let full = Message {
        plugin: Some("thumb".into()),
        id: Some("0190-ä".into()),
        content_type: Some("image/png".into()),
        // In the order of their names: AMQP's table of headers keeps no other.
        headers: [("a", ""), ("m", "ü 1"), ("z", "last")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: (0..1 << 20).map(|_| fastrand::u8(..)).collect(),
        reply_to: Some(ReplyTo {
            address: "nobody".into(),
            correlation_id: Some("c-1".into()),
            notify: true,
        }),
        priority: None,
        record: Record {
            attempt: 3,
            parked_since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            on_trial: true,
        },
    };
    let empty = Message::default();
    broker
        .publish(&queue, vec![full.clone(), empty.clone()], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let deliveries = take(&mut consumer, 2).await;
    assert_eq!(deliveries[0].message, full);
    assert_eq!(deliveries[1].message, empty);
    for delivery in deliveries {
        assert_eq!(delivery.crashes, 0);
        assert!(delivery.hold.is_live());
        let mut message = delivery.message;
        message.reply_to = None;
        delivery.hold.settle(message, done()).await.unwrap();
    }
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
}

async fn a_message_waits_on_a_queue_that_nobody_has_opened(subject: &impl Subject) {
    let queue = subject.queue();
    let producer = subject.connect().await;
    producer
        .publish(&queue, vec![bare("early")], None)
        .await
        .unwrap();
    producer.close().await;
    let broker = subject.connect().await;
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(&delivery.message.body[..], b"early");
    delivery.settle(done()).await.unwrap();
}

async fn a_task_that_is_done_is_gone_for_good(subject: &impl Subject) {
    let (first, queue) = (subject.connect().await, subject.queue());
    first
        .publish(&queue, vec![bare("once")], None)
        .await
        .unwrap();
    let mut consumer = first.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    first.close().await;
    let second = subject.connect().await;
    let mut consumer = second.consume(&queue, 1).await.unwrap();
    assert_nothing_before_a_marker(&*second, &queue, &mut consumer).await;
}

async fn an_unsettled_message_goes_to_another_when_its_holder_goes_and_counts_a_crash(
    subject: &impl Subject,
) {
    let (holder, heir, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    holder
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = holder.consume(&queue, 1).await.unwrap();
    let held = next(&mut consumer).await;
    let mut other = heir.consume(&queue, 1).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    holder.close().await;
    let again = next(&mut other).await;
    assert_eq!(
        (again.message.clone(), again.crashes),
        (held.message.clone(), 1)
    );
    assert!(!held.hold.is_live());
    again.settle(done()).await.unwrap();
}

async fn a_released_message_comes_back_with_its_record_and_no_crash(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let record = Record {
        attempt: 2,
        parked_since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        on_trial: true,
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

async fn a_retry_comes_back_after_its_delay_and_not_before(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker
        .publish(&queue, vec![bare("work")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let delay = Duration::from_secs(2);
    let started = Instant::now();
    next(&mut consumer)
        .await
        .settle(retry(delay, 2))
        .await
        .unwrap();
    let again = next(&mut consumer).await;
    assert_in_time(started, delay);
    assert_eq!((again.message.record.attempt, again.crashes), (2, 0));
    again.settle(done()).await.unwrap();
}

async fn a_delayed_message_is_due_in_time(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let delay = Duration::from_millis(1500);
    let started = Instant::now();
    broker
        .publish(&queue, vec![bare("later")], Some(delay))
        .await
        .unwrap();
    await_depth(&*broker, &queue, |depth| {
        depth.delayed == 1 && depth.ready == 0
    })
    .await;
    let delivery = next(&mut consumer).await;
    assert_in_time(started, delay);
    delivery.settle(done()).await.unwrap();
}

async fn a_dead_letter_leaves_the_queue_and_is_counted(subject: &impl Subject) {
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

/// Asks through `replies` for an answer to one message.
fn asking(replies: &dyn Replies, correlation_id: &str, notify: bool) -> Message {
    Message {
        reply_to: Some(ReplyTo {
            address: replies.address().to_owned(),
            correlation_id: Some(correlation_id.to_owned()),
            notify,
        }),
        ..bare("question")
    }
}

async fn a_reply_reaches_its_requester_and_no_other(subject: &impl Subject) {
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

async fn a_retry_is_told_only_to_who_asked_to_hear_of_retries(subject: &impl Subject) {
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

async fn two_consumers_share_a_queue_and_no_message_goes_to_both(subject: &impl Subject) {
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    let mut first = one.consume(&queue, 5).await.unwrap();
    let mut second = two.consume(&queue, 5).await.unwrap();
    one.publish(&queue, numbered(10), None).await.unwrap();
    // Each holds as many as it may, so neither could take the other's share.
    let (first, second) = tokio::join!(take(&mut first, 5), take(&mut second, 5));
    let numbers: BTreeSet<u32> = first.iter().chain(&second).map(number).collect();
    assert_eq!(numbers, (0..10).collect());
    for delivery in first.into_iter().chain(second) {
        delivery.settle(done()).await.unwrap();
    }
}

async fn prefetch_bounds_the_unsettled(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(4), None).await.unwrap();
    let mut bounded = broker.consume(&queue, 3).await.unwrap();
    let mut held = take(&mut bounded, 3).await;
    // The fourth is left for somebody else, though the first asks for it.
    let mut into = Vec::new();
    let mut free = other.consume(&queue, 3).await.unwrap();
    let fourth = tokio::select! {
        () = bounded.next(&mut into, 1) => panic!("a fourth delivery with three unsettled"),
        fourth = next(&mut free) => fourth,
    };
    assert_eq!(number(&fourth), 3);
    // A settlement makes room for one more.
    held.remove(0).settle(done()).await.unwrap();
    free.stop().await;
    broker.publish(&queue, vec![bare("4")], None).await.unwrap();
    let fifth = next(&mut bounded).await;
    assert_eq!(number(&fifth), 4);
    for delivery in held.into_iter().chain([fourth, fifth]) {
        delivery.settle(done()).await.unwrap();
    }
}

async fn stopping_gives_back_what_was_not_handed_out(subject: &impl Subject) {
    let (broker, other, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    broker.publish(&queue, numbered(10), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let kept = next(&mut consumer).await;
    consumer.stop().await;
    let mut heir = other.consume(&queue, 10).await.unwrap();
    let rest = take(&mut heir, 9).await;
    let mut numbers: BTreeSet<u32> = rest.iter().map(number).collect();
    assert!(numbers.insert(number(&kept)));
    assert_eq!(numbers, (0..10).collect());
    for delivery in rest {
        assert_eq!(delivery.crashes, 0);
        delivery.settle(done()).await.unwrap();
    }
    kept.settle(done()).await.unwrap();
}

async fn ten_thousand_messages_through_two_consumers_all_arrive(subject: &impl Subject) {
    const COUNT: u32 = 10_000;
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    one.publish(&queue, numbered(COUNT), None).await.unwrap();
    let (seen, mut arrived) = tokio::sync::mpsc::channel(64);
    let mut loops = Vec::new();
    for broker in [&one, &two] {
        let mut consumer = broker.consume(&queue, 200).await.unwrap();
        let seen = seen.clone();
        loops.push(tokio::spawn(async move {
            loop {
                let mut batch = Vec::new();
                consumer.next(&mut batch, 200).await;
                let numbers: Vec<u32> = batch.iter().map(number).collect();
                let settled = futures_util::future::join_all(
                    batch.into_iter().map(|delivery| delivery.settle(done())),
                );
                assert!(settled.await.into_iter().all(|settled| settled.is_ok()));
                if seen.send(numbers).await.is_err() {
                    return;
                }
            }
        }));
    }
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    while counts.len() < COUNT as usize {
        let numbers = tokio::time::timeout(PATIENCE, arrived.recv())
            .await
            .expect("messages arrive")
            .unwrap();
        for number in numbers {
            *counts.entry(number).or_default() += 1;
        }
    }
    assert!(counts.values().all(|count| *count == 1));
    for handle in loops {
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
    }
    await_depth(&*one, &queue, |depth| {
        depth.ready == 0 && depth.running.unwrap_or(0) == 0
    })
    .await;
}

async fn settling_after_the_hold_was_lost_says_so(subject: &impl Subject) {
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

async fn what_identifies_a_task_survives_retries(subject: &impl Subject) {
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

async fn a_made_up_id_stays_with_the_task(subject: &impl Subject) {
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

async fn a_cancelled_next_has_taken_nothing(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let mut consumer = broker.consume(&queue, 20).await.unwrap();
    broker.publish(&queue, numbered(20), None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        // Cancelled wherever one poll leaves it, over and over.
        let mut into = Vec::new();
        tokio::select! {
            biased;
            () = consumer.next(&mut into, 1) => {}
            () = tokio::task::yield_now() => {}
        }
        for delivery in into {
            seen.push(number(&delivery));
            delivery.settle(done()).await.unwrap();
        }
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

async fn two_queues_do_not_mix(subject: &impl Subject) {
    let (broker, left, right) = (subject.connect().await, subject.queue(), subject.queue());
    broker
        .publish(&left, vec![bare("left")], None)
        .await
        .unwrap();
    broker
        .publish(&right, vec![bare("right")], None)
        .await
        .unwrap();
    for (queue, body) in [(&left, "left"), (&right, "right")] {
        let mut consumer = broker.consume(queue, 1).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(&delivery.message.body[..], body.as_bytes());
        delivery.settle(done()).await.unwrap();
        assert_nothing_before_a_marker(&*broker, queue, &mut consumer).await;
    }
}

async fn a_queue_that_nobody_made_has_no_depth(subject: &impl Subject) {
    let broker = subject.connect().await;
    assert_eq!(broker.depth(&subject.queue()).await.unwrap(), None);
}

/// Longer than a consumer may take to see that its queue was paused.
const PAUSE_IS_SEEN: Duration = Duration::from_secs(4);

async fn a_paused_queue_hands_out_nothing_until_it_is_resumed(subject: &impl Subject) {
    let (broker, operator, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    operator.set_paused(&queue, true).await.unwrap();
    operator.set_paused(&queue, true).await.unwrap();
    // There is no sign but time that every consumer has seen it.
    tokio::time::sleep(PAUSE_IS_SEEN).await;
    broker.publish(&queue, vec![bare("0")], None).await.unwrap();
    let mut into = Vec::new();
    let taken = tokio::time::timeout(PAUSE_IS_SEEN, consumer.next(&mut into, 1)).await;
    assert!(taken.is_err(), "a paused queue handed out {into:?}");
    assert_eq!(broker.depth(&queue).await.unwrap().unwrap().ready, 1);
    operator.set_paused(&queue, false).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((number(&delivery), delivery.crashes), (0, 0));
    delivery.settle(done()).await.unwrap();
}

async fn a_pause_is_seen_by_brokers_that_come_later(subject: &impl Subject) {
    let queue = subject.queue();
    let operator = subject.connect().await;
    assert!(!operator.is_paused(&queue).await.unwrap());
    operator.set_paused(&queue, true).await.unwrap();
    operator.close().await;
    let broker = subject.connect().await;
    assert!(broker.is_paused(&queue).await.unwrap());
    broker.publish(&queue, vec![bare("0")], None).await.unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let mut into = Vec::new();
    let taken = tokio::time::timeout(PAUSE_IS_SEEN, consumer.next(&mut into, 1)).await;
    assert!(taken.is_err(), "a paused queue handed out {into:?}");
    broker.set_paused(&queue, false).await.unwrap();
    assert!(!broker.is_paused(&queue).await.unwrap());
    next(&mut consumer).await.settle(done()).await.unwrap();
}

async fn what_was_handed_out_before_a_pause_can_be_settled(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    broker.publish(&queue, numbered(2), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 2).await.unwrap();
    let mut held = take(&mut consumer, 2).await;
    broker.set_paused(&queue, true).await.unwrap();
    tokio::time::sleep(PAUSE_IS_SEEN).await;
    held.remove(0).settle(done()).await.unwrap();
    held.remove(0)
        .settle(retry(Duration::ZERO, 2))
        .await
        .unwrap();
    await_depth(&*broker, &queue, |depth| depth.ready == 1).await;
    consumer.stop().await;
}

async fn a_purge_removes_the_part_that_was_named_and_counts_it(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    assert_eq!(broker.purge(&queue, Part::Ready).await.unwrap(), None);
    broker.publish(&queue, numbered(3), None).await.unwrap();
    let mut consumer = broker.consume(&queue, 3).await.unwrap();
    let mut held = take(&mut consumer, 3).await;
    held.pop().unwrap().settle(dead()).await.unwrap();
    let late = Some(Duration::from_secs(600));
    broker.publish(&queue, numbered(2), late).await.unwrap();
    consumer.stop().await;
    broker.publish(&queue, numbered(4), None).await.unwrap();
    for (part, removed) in [(Part::Ready, 4), (Part::Delayed, 2), (Part::Dead, 1)] {
        await_depth(&*broker, &queue, |depth| match part {
            Part::Ready => depth.ready == removed,
            Part::Delayed => depth.delayed == removed,
            Part::Dead => depth.dead == removed,
        })
        .await;
        assert_eq!(
            broker.purge(&queue, part).await.unwrap(),
            Some(removed),
            "{part:?}"
        );
        assert_eq!(broker.purge(&queue, part).await.unwrap(), Some(0));
    }
    for delivery in held {
        delivery.settle(done()).await.unwrap();
    }
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}

/// Notices that a failing test shows.
pub(crate) fn printed() -> NoticeSink {
    Arc::new(|notice| eprintln!("notice: {notice:?}"))
}
