//! What every broker promises, tested on each of them.
//!
//! A test's name is a guarantee. A broker joins by a [`Subject`] and one line of [`on_broker!`].

pub(crate) mod dead_letters;
mod delay;
mod delivery;
mod oversight;
mod prefetch;
mod replies;
mod settlement;
mod suspects;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use scutwork::broker::{Broker, Consumer, Delivery, Message, NoticeSink, Record, Replies, ReplyTo};
use scutwork::name::QueueName;
use scutwork::settlement::{DeadLetter, Reply, ReplyKind, Settlement};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a test is taken for one that hangs. It says nothing of speed: ten thousand letters are many commits, and take
/// minutes where others want the disk and the processors.
const HUNG: Duration = Duration::from_secs(10 * 60);

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
    ($name:ident, $subject:ty, { $($idea:ident: [$($test:ident),* $(,)?]),* $(,)? }) => {
        mod $name {
            use super::Subject;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let subject = <$subject as Subject>::start().await;
                    tokio::time::timeout(super::HUNG, super::$idea::$test(&subject))
                        .await
                        .expect("it does not hang");
                }
            )*)*
        }
    };
}

/// The list of guarantees, by the file that says what each means, for one broker.
macro_rules! contract {
    ($name:ident, $subject:ty) => {
        on_broker!(
            $name,
            $subject,
            {
                delivery: [
                    a_published_message_is_delivered_once_and_unchanged,
                    a_message_waits_on_a_queue_that_nobody_has_opened,
                    a_task_that_is_done_is_gone_for_good,
                    an_unsettled_message_goes_to_another_when_its_holder_goes_and_counts_a_crash,
                    two_consumers_share_a_queue_and_no_message_goes_to_both,
                    stopping_gives_back_what_was_not_handed_out,
                    ten_thousand_messages_through_two_consumers_all_arrive,
                    a_cancelled_next_has_taken_nothing,
                    two_queues_do_not_mix,
                ],
                prefetch: [
                    prefetch_bounds_the_unsettled,
                    a_larger_prefetch_hands_out_more_beside_what_is_held,
                    a_smaller_prefetch_bounds_the_unsettled_and_takes_back_nothing,
                    a_prefetch_that_changes_all_the_time_loses_nothing_and_counts_no_crash,
                    a_stop_while_the_prefetch_changes_gives_back_everything,
                    a_stop_while_much_is_settled_gives_back_everything,
                    a_stop_with_much_in_hand_gives_back_everything,
                    a_pause_while_the_prefetch_changes_is_kept_and_loses_nothing,
                ],
                settlement: [
                    a_released_message_comes_back_with_its_record_and_no_crash,
                    a_dead_letter_leaves_the_queue_and_is_counted,
                    settling_after_the_hold_was_lost_says_so,
                    what_identifies_a_task_survives_retries,
                    a_made_up_id_stays_with_the_task,
                ],
                delay: [
                    a_retry_comes_back_after_its_delay_and_not_before,
                    a_delayed_message_is_not_early,
                ],
                replies: [
                    a_reply_reaches_its_requester_and_no_other,
                    a_retry_is_told_only_to_who_asked_to_hear_of_retries,
                ],
                suspects: [
                    a_suspect_is_handed_to_no_consumer_but_alone,
                    a_crash_on_trial_is_counted_against_the_one_that_ran,
                    a_trial_that_was_interrupted_counts_no_crash,
                    suspects_are_counted_and_purged_with_what_is_ready,
                    a_paused_queue_tries_nobody,
                ],
                oversight: [
                    a_queue_that_nobody_made_has_no_depth,
                    a_paused_queue_hands_out_nothing_until_it_is_resumed,
                    a_pause_is_seen_by_brokers_that_come_later,
                    what_was_handed_out_before_a_pause_can_be_settled,
                    a_purge_removes_the_part_that_was_named_and_counts_it,
                ],
                dead_letters: [
                    a_queue_that_nobody_made_has_no_dead_letters,
                    a_dead_letter_shows_its_message_and_its_cause,
                    looking_at_dead_letters_leaves_them_as_they_were,
                    a_retried_dead_letter_starts_again_with_its_id_and_its_new_body,
                    what_is_not_settled_stays_dead_and_nothing_else_does,
                    a_pass_that_is_dropped_half_way_loses_nothing,
                    passes_at_the_same_time_each_see_every_dead_letter,
                    ten_thousand_dead_letters_are_read_in_pages_and_put_back,
                    a_dead_letter_that_was_retried_elsewhere_is_not_retried_twice,
                ],
            }
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

/// Notices that a failing test shows.
pub(crate) fn printed() -> NoticeSink {
    Arc::new(|notice| eprintln!("notice: {notice:?}"))
}
