//! What every broker promises of dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use scutwork::broker::{Broker, Buried, DeadLetters, Message, Record};
use scutwork::name::QueueName;
use scutwork::settlement::Settlement;

use super::{
    Subject, assert_nothing_before_a_marker, bare, dead, done, next, number, numbered, take,
};
use crate::support::waiting::await_depth;

/// Buries messages in their order, and gives what was said of each.
pub(crate) async fn bury(broker: &dyn Broker, queue: &QueueName, messages: Vec<Message>) {
    let count = messages.len();
    broker.publish(queue, messages, None).await.unwrap();
    let mut consumer = broker.consume(queue, 500).await.unwrap();
    let mut buried = 0;
    while buried < count {
        // So few that each is on its way before the next is begun: their order is looked at.
        let deliveries = take(&mut consumer, (count - buried).min(100)).await;
        buried += deliveries.len();
        let settled = join_all(
            deliveries
                .into_iter()
                .map(|delivery| delivery.settle(dead())),
        );
        assert!(settled.await.into_iter().all(|settled| settled.is_ok()));
    }
    consumer.stop().await;
}

/// A pass from one end to the other, in pages of this size.
async fn look(broker: &dyn Broker, queue: &QueueName, page: usize) -> Vec<Buried> {
    let mut pass = broker.dead_letters(queue).await.unwrap();
    let letters = rest(&mut pass, page).await;
    pass.close().await.unwrap();
    letters
}

async fn rest(pass: &mut Box<dyn DeadLetters>, page: usize) -> Vec<Buried> {
    let mut all = Vec::new();
    loop {
        let letters = pass.next(page).await.unwrap();
        if letters.is_empty() {
            return all;
        }
        assert!(letters.len() <= page);
        all.extend(letters);
    }
}

fn bodies(letters: &[Buried]) -> Vec<String> {
    let body = |letter: &Buried| String::from_utf8(letter.message.body.to_vec()).unwrap();
    letters.iter().map(body).collect()
}

fn counted(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// All of so many numbered letters, none twice, in whatever order they died.
fn assert_each_once(letters: &[Buried], count: u32) {
    let mut seen = bodies(letters);
    seen.sort_unstable_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(seen, counted(count));
}

pub(super) async fn a_queue_that_nobody_made_has_no_dead_letters(subject: &impl Subject) {
    let broker = subject.connect().await;
    assert_eq!(look(&*broker, &subject.queue(), 10).await, []);
}

pub(super) async fn a_dead_letter_shows_its_message_and_its_cause(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let message = Message {
        plugin: Some("thumb".into()),
        id: Some("task-7".into()),
        content_type: Some("image/png".into()),
        headers: vec![("traceparent".into(), "00-1-2-01".into())],
        ..bare([0xff, 0])
    };
    bury(&*broker, &queue, vec![message.clone()]).await;
    let letters = look(&*broker, &queue, 10).await;
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(letter.message, message);
    let Settlement::Dead { letter: cause, .. } = dead() else {
        panic!("what buries is a dead letter");
    };
    assert_eq!(letter.cause, Some(cause));
}

pub(super) async fn looking_at_dead_letters_leaves_them_as_they_were(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    bury(&*broker, &queue, numbered(100)).await;
    // Oftener than a broker lets a message be handed over by default.
    for page in [7, 100, 1000].into_iter().cycle().take(24) {
        assert_each_once(&look(&*broker, &queue, page).await, 100);
    }
    await_depth(&*broker, &queue, |depth| {
        (depth.ready, depth.dead) == (0, 100)
    })
    .await;
}

pub(super) async fn a_retried_dead_letter_starts_again_with_its_id_and_its_new_body(
    subject: &impl Subject,
) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    let message = Message {
        plugin: Some("thumb".into()),
        id: Some("task-7".into()),
        headers: vec![("traceparent".into(), "00-1-2-01".into())],
        record: Record {
            attempt: 5,
            ..Record::default()
        },
        ..bare("wrong")
    };
    bury(&*broker, &queue, vec![message.clone()]).await;
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let mut letters = pass.next(10).await.unwrap();
    letters[0].message.body = "right".into();
    assert_eq!(pass.retry(letters).await.unwrap(), []);
    pass.close().await.unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let again = next(&mut consumer).await;
    let expected = Message {
        record: Record::default(),
        body: "right".into(),
        ..message
    };
    assert_eq!((&again.message, again.crashes), (&expected, 0));
    again.settle(done()).await.unwrap();
    assert_eq!(look(&*broker, &queue, 10).await, []);
}

pub(super) async fn what_is_not_settled_stays_dead_and_nothing_else_does(subject: &impl Subject) {
    let (broker, queue) = (subject.connect().await, subject.queue());
    bury(&*broker, &queue, numbered(30)).await;
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let mut expected = Vec::new();
    loop {
        let mut letters = pass.next(9).await.unwrap();
        if letters.is_empty() {
            break;
        }
        let (retried, discarded) = (letters.remove(0), letters.pop());
        assert_eq!(pass.retry(vec![retried]).await.unwrap(), []);
        let discarded = discarded.into_iter().collect();
        assert_eq!(pass.discard(discarded).await.unwrap(), []);
        expected.extend(bodies(&letters));
    }
    pass.close().await.unwrap();
    assert!(!expected.is_empty());
    let mut stayed = bodies(&look(&*broker, &queue, 100).await);
    stayed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(stayed, expected);
}

pub(super) async fn a_pass_that_is_dropped_half_way_loses_nothing(subject: &impl Subject) {
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    bury(&*one, &queue, numbered(40)).await;
    let mut pass = one.dead_letters(&queue).await.unwrap();
    let mut letters = pass.next(10).await.unwrap();
    let retried = letters.pop().unwrap();
    assert_eq!(pass.retry(vec![retried.clone()]).await.unwrap(), []);
    drop(pass);
    let seen: BTreeSet<_> = bodies(&look(&*two, &queue, 100).await)
        .into_iter()
        .collect();
    let mut consumer = two.consume(&queue, 1).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.message.body, retried.message.body);
    again.settle(done()).await.unwrap();
    // At least once: the one that was retried may be left among the dead ones as well.
    let others = counted(40)
        .into_iter()
        .filter(|body| body.as_bytes() != &retried.message.body[..])
        .collect();
    assert!(seen.is_superset(&others), "{seen:?}");
}

pub(super) async fn passes_at_the_same_time_each_see_every_dead_letter(subject: &impl Subject) {
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    bury(&*one, &queue, numbered(300)).await;
    let looks = [&one, &two, &one].map(|broker| look(&**broker, &queue, 20));
    for seen in join_all(looks).await {
        assert_each_once(&seen, 300);
    }
}

pub(super) async fn ten_thousand_dead_letters_are_read_in_pages_and_put_back(
    subject: &impl Subject,
) {
    const COUNT: u32 = 10_000;
    let (broker, queue) = (subject.connect().await, subject.queue());
    bury(&*broker, &queue, numbered(COUNT)).await;
    let began = std::time::Instant::now();
    let seen = look(&*broker, &queue, 500).await;
    eprintln!("{COUNT} dead letters read in {:?}", began.elapsed());
    assert_each_once(&seen, COUNT);
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let mut pages = 0;
    loop {
        let letters = pass.next(500).await.unwrap();
        if letters.is_empty() {
            break;
        }
        pages += 1;
        assert_eq!(pass.retry(letters).await.unwrap(), []);
    }
    pass.close().await.unwrap();
    // One may be small while the size of letters is not known.
    assert!(pages <= COUNT / 500 + 1, "{pages} pages");
    assert_eq!(look(&*broker, &queue, 500).await, []);
    let mut consumer = broker.consume(&queue, 500).await.unwrap();
    let mut again = BTreeSet::new();
    while again.len() < COUNT as usize {
        // Together, for each waits until the broker has heard of it.
        let deliveries = take(&mut consumer, (COUNT as usize - again.len()).min(500)).await;
        let settled = join_all(deliveries.into_iter().map(|delivery| {
            assert!(again.insert(number(&delivery)), "one came twice");
            delivery.settle(done())
        }));
        assert!(settled.await.into_iter().all(|settled| settled.is_ok()));
    }
    assert_nothing_before_a_marker(&*broker, &queue, &mut consumer).await;
}

pub(super) async fn a_dead_letter_that_was_retried_elsewhere_is_not_retried_twice(
    subject: &impl Subject,
) {
    let (one, two, queue) = (
        subject.connect().await,
        subject.connect().await,
        subject.queue(),
    );
    bury(&*one, &queue, vec![bare("once")]).await;
    let retry = async |broker: &Arc<dyn Broker>| {
        let mut pass = broker.dead_letters(&queue).await.unwrap();
        let letters = pass.next(10).await.unwrap();
        pass.retry(letters).await.unwrap();
        pass.close().await.unwrap();
    };
    tokio::join!(retry(&one), retry(&two));
    let mut consumer = one.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(done()).await.unwrap();
    assert_nothing_before_a_marker(&*one, &queue, &mut consumer).await;
}
