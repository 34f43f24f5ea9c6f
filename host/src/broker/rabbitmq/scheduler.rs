//! [`Scheduler`]: moves what leaves a delay queue to the next one, and what is due to the task queue.
//!
//! Of all the workers on a task queue one does this, the one that has the lock; the others look twice a
//! second whether it is free.
//!
//! What is first in a delay queue leaves it first. So the first is looked at, put back, and looked at
//! again when it leaves; nothing waits unacked, and nothing behind it is touched. A move is published,
//! confirmed, and only then acked.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::Consumer as Rings;
use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;

use super::acks::Verdict;
use super::connection::{ACCESS_REFUSED, Connector, Link, NOT_FOUND, Trouble, answer, over};
use super::delay::{self, LEVELS, Stay};
use super::hold::Desk;
use super::line::Line;
use super::outlet::{Destination, NotPublished, Patience};
use super::pace::Pace;
use super::stop::Stop;
use super::{lock, message, topology};
use crate::broker::Notice;
use crate::units::show_duration;

/// How often to look whether the lock is free.
const LOOK: Duration = Duration::from_millis(500);

/// How long there is between two looks at the first of a delay queue, at least.
const GRAIN: Duration = Duration::from_millis(100);

/// How long one look may be ahead: the system's clock may be set in between.
const AHEAD: Duration = Duration::from_secs(60);

/// How long nothing may come before a subscription is made anew: a queue that was deleted and made again
/// at once can leave one behind that nothing comes by.
const SILENCE: Duration = Duration::from_secs(60);

/// The most that is moved at once out of one delay queue.
const LARGEST: u16 = 256;

/// By how much the window grows while all that comes is due. So many acks are no more than half of what a
/// channel tells a quorum queue before it waits for it.
const GROWTH: u16 = 16;

/// Moves what leaves the delay queues of one task queue, while nobody else does.
pub(super) struct Scheduler {
    pub(super) connector: Arc<Connector>,
    pub(super) desk: Arc<Desk>,
}

/// The time that one connection has the lock.
///
/// The connection is its own: 3.10.8 ends one that consumes from a queue which is just being made.
struct Shift<'a> {
    link: &'a Link,
    desk: &'a Desk,
}

/// When to look at a delay queue again.
enum Next {
    /// At once, and take so many.
    Now(u16),
    /// When its first leaves it.
    At(SystemTime),
    /// We were asked to stop.
    Never,
}

impl Scheduler {
    /// Runs until it is asked to stop, and ends when nothing is half moved. Where it is dropped before,
    /// what it was moving may be delivered twice.
    pub(super) async fn run(self, mut stopped: Stop) {
        let mut pace = Pace::new();
        while !stopped.is_asked() {
            tokio::select! {
                () = self.await_turn() => {}
                () = stopped.asked() => return,
            }
            let since = Instant::now();
            let Err(why) = self.serve(&mut stopped).await else {
                continue;
            };
            pace.lived(since.elapsed());
            let wait = pace.wait();
            (self.desk.notices)(Notice::Warning(format!(
                "what is due later on queue `{}` waits: {why}; trying again within {}",
                self.desk.queue,
                show_duration(wait),
            )));
            tokio::select! {
                () = self.connector.wait(wait, &mut pace) => {}
                () = stopped.asked() => return,
            }
        }
    }

    /// Waits until nobody has the lock, as far as can be seen: by a knock, because a lock that is refused is
    /// an error in the broker's log.
    async fn await_turn(&self) {
        let name = delay::lock_name(&self.desk.queue);
        while self.is_taken(&name).await {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether another has the lock, as far as can be seen. It never comes back from this when nothing may be
    /// published, by which we would lose the connection that publishes again and again.
    async fn is_taken(&self, name: &str) -> bool {
        let Ok(outlet) = self.desk.publisher.outlet().await else {
            return true;
        };
        match outlet.knocks_at(name).await {
            Ok(is_there) => is_there,
            Err(NotPublished::Trouble(trouble)) if trouble.code == Some(ACCESS_REFUSED) => {
                std::future::pending().await
            }
            Err(_) => true,
        }
    }

    /// Moves what there is to move until it is asked to stop; nothing if another has the lock.
    ///
    /// # Errors
    /// Why it ended before.
    async fn serve(&self, stopped: &mut Stop) -> Result<(), String> {
        let opened = self.connector.open("delays").await;
        let (link, mut events) = opened.map_err(|error| error.to_string())?;
        let shift = Shift {
            link: &link,
            desk: &self.desk,
        };
        let served = tokio::select! {
            served = shift.serve(stopped) => served.map_err(|trouble| trouble.text),
            why = over(&mut events, |_| {}) => return Err(why),
        };
        link.close().await;
        served
    }
}

impl Shift<'_> {
    async fn serve(&self, stopped: &mut Stop) -> Result<(), Trouble> {
        let name = delay::lock_name(&self.desk.queue);
        if !lock::try_lock(self.link, &name).await? {
            return Ok(());
        }
        let rings = self.listen(&name).await?;
        self.tend_all(rings, stopped).await
    }

    /// Listens to what is told to the owner of the lock. None: we may not have one, and go on without.
    async fn listen(&self, name: &str) -> Result<Option<Rings>, Trouble> {
        let channel = self.link.channel().await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let listening =
            channel.basic_consume(name.into(), "".into(), options, FieldTable::default());
        match answer(listening).await {
            Ok(rings) => Ok(Some(rings)),
            Err(trouble) if matches!(trouble.code, Some(ACCESS_REFUSED | NOT_FOUND)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Moves what leaves every delay queue that is there, until it is asked to stop.
    async fn tend_all(&self, mut rings: Option<Rings>, stopped: &mut Stop) -> Result<(), Trouble> {
        let mut tended = FuturesUnordered::new();
        let mut is_tended = [false; LEVELS as usize];
        loop {
            for (level, is_tended) in (0..LEVELS).zip(&mut is_tended) {
                if *is_tended {
                    continue;
                }
                // They are made from the lowest up.
                let name = delay::level_name(&self.desk.queue, level);
                if topology::count(self.link, &name).await?.is_none() {
                    break;
                }
                *is_tended = true;
                tended.push(self.tend(level, stopped.clone()));
            }
            tokio::select! {
                Some(level) = tended.next() => is_tended[level as usize] = false,
                rung = next_ring(&mut rings) => rung?,
                () = stopped.asked() => break,
            }
        }
        // Each of them hears the same.
        while tended.next().await.is_some() {}
        Ok(())
    }

    /// Moves what leaves one delay queue, until it is gone. Gives its level.
    async fn tend(&self, level: u32, mut stopped: Stop) -> u32 {
        let mut pace = Pace::new();
        let mut window = 1;
        while !stopped.is_asked() {
            match self.look(level, window, &mut stopped).await {
                Ok(next) => {
                    pace = Pace::new();
                    match next {
                        Next::Now(next) => window = next,
                        Next::At(leaves) => {
                            window = 1;
                            tokio::select! {
                                () = sleep_until(leaves) => {}
                                () = stopped.asked() => {}
                            }
                        }
                        Next::Never => break,
                    }
                }
                Err(trouble) if trouble.code == Some(NOT_FOUND) => break,
                Err(trouble) => {
                    window = 1;
                    self.recover(&mut pace, &trouble, &mut stopped).await;
                }
            }
        }
        level
    }

    /// Waits before another try, and says why there has to be one.
    async fn recover(&self, pace: &mut Pace, trouble: &Trouble, stopped: &mut Stop) {
        let wait = pace.wait();
        // Of a connection that breaks others tell, and this ends with it.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped.asked() => return,
        }
        (self.desk.notices)(Notice::Warning(format!(
            "what was delayed cannot go on to queue `{}`: {}; trying again every {}",
            self.desk.queue,
            trouble.text,
            show_duration(wait),
        )));
    }

    /// Takes from a delay queue for as long as what comes is to be moved.
    async fn look(&self, level: u32, window: u16, stopped: &mut Stop) -> Result<Next, Trouble> {
        let name = delay::level_name(&self.desk.queue, level);
        let (line, ledger) = Line::open(self.link, &name, window).await?;
        let (next, written) = tokio::join!(self.take(line, window, stopped), ledger.keep(&name));
        written.and(next)
    }

    async fn take(&self, mut line: Line, window: u16, stopped: &mut Stop) -> Result<Next, Trouble> {
        let mut moves = FuturesUnordered::new();
        let mut next = None;
        let mut failure = None;
        let mut taken = 0;
        let mut is_over = false;
        loop {
            let end = tokio::select! {
                Some((tag, moved)) = moves.next() => {
                    let Err(why) = moved else {
                        line.settle(tag, Verdict::Ack);
                        continue;
                    };
                    line.settle(tag, Verdict::Requeue);
                    failure.get_or_insert(why);
                    Next::Now(1)
                }
                delivered = line.next(), if !is_over => {
                    let delivery = match delivered {
                        Some(delivered) => delivered?,
                        None if next.is_some() => {
                            is_over = true;
                            continue;
                        }
                        None => return Err(ended()),
                    };
                    let tag = delivery.delivery_tag;
                    taken += 1;
                    let leaves = message::waiting(&delivery.properties)
                        .map(|waiting| waiting.leaves)
                        .filter(|leaves| *leaves > SystemTime::now());
                    if let Some(leaves) = leaves && window == 1 && !delivery.redelivered {
                        if next.is_none() {
                            // Before it goes back: it would come again at once.
                            line.cancel().await?;
                            next = Some(Next::At(leaves));
                        }
                        line.settle(tag, Verdict::Requeue);
                        continue;
                    }
                    // What came back to a queue stands there in no order. So what is not due yet, and came
                    // back once or came with others, goes to the end, with a stay of its own.
                    moves.push(self.pass_on(delivery));
                    match leaves {
                        None if taken < window || window == LARGEST => continue,
                        None => Next::Now(window.saturating_mul(GROWTH).min(LARGEST)),
                        Some(_) => Next::Now(1),
                    }
                }
                () = stopped.asked(), if next.is_none() => Next::Never,
                () = tokio::time::sleep(SILENCE), if next.is_none() && moves.is_empty() => Next::Now(1),
                else => break,
            };
            if next.is_none() {
                line.cancel().await?;
                next = Some(end);
            }
        }
        match (failure, next) {
            (Some(why), _) => Err(why),
            (None, Some(next)) => Ok(next),
            (None, None) => Err(ended()),
        }
    }

    /// Publishes a message to where it waits next, or to the task queue.
    async fn pass_on(&self, delivery: Delivery) -> (u64, Result<(), Trouble>) {
        let queue = &self.desk.queue;
        let stay = message::waiting(&delivery.properties)
            .and_then(|waiting| Stay::until(waiting.due, SystemTime::now()));
        let to = match stay {
            Some(stay) => Destination::Delay(queue, stay.level),
            None => Destination::Queue(queue),
        };
        let body = delivery.data.into();
        let passed_on = async {
            let properties = message::passed_on(&delivery.properties, stay)
                .map_err(|error| format!("{error:#}"))?;
            let publisher = &self.desk.publisher;
            let sent = publisher.publish(to, properties, &body, Patience::Bounded);
            sent.await.map_err(|why| why.text().to_owned())
        };
        let passed_on = passed_on.await.map_err(|text| Trouble { code: None, text });
        (delivery.delivery_tag, passed_on)
    }
}

/// Waits until there may be another delay queue: until somebody says so, or for a while where nobody can.
async fn next_ring(rings: &mut Option<Rings>) -> Result<(), Trouble> {
    let Some(rings) = rings else {
        tokio::time::sleep(AHEAD).await;
        return Ok(());
    };
    loop {
        match rings.next().await {
            Some(Ok(told)) if message::is_ring(&told.properties) => return Ok(()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(ended()),
        }
    }
}

/// Waits until then by the system's clock, and somewhat longer rather than look too often.
async fn sleep_until(then: SystemTime) {
    let mut least = GRAIN;
    while let Some(left) = then
        .duration_since(SystemTime::now())
        .ok()
        .max(Some(least))
        .filter(|left| !left.is_zero())
    {
        least = Duration::ZERO;
        tokio::time::sleep(left.min(AHEAD)).await;
    }
}

fn ended() -> Trouble {
    Trouble {
        code: None,
        text: "the broker ended the subscription; was the queue deleted?".to_owned(),
    }
}
