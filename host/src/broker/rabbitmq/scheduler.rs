//! [`Scheduler`]: moves what leaves a delay queue to the next one, and what is due to the task queue.
//!
//! Of all the connections that take from a task queue, one does this, the one that has the lock; the
//! others look twice a second whether it is free.
//!
//! What is first in a delay queue leaves it first. So the first is looked at, put back, and looked at
//! again when it leaves; nothing waits unacked, and nothing behind it is touched. A move is published,
//! confirmed, and only then acked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use tokio::sync::watch;

use super::acks::Verdict;
use super::connection::{Link, Trouble};
use super::delay::{self, LEVELS, Stay};
use super::hold::Desk;
use super::line::Line;
use super::outlet::{Destination, NotPublished, Patience};
use super::pace::Pace;
use super::stop::Stop;
use super::{lock, message};
use crate::broker::Notice;
use crate::units::show_duration;

/// How often to look for what is not there: the lock, or the next delay queue.
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

/// By how much the window grows while all that comes is due.
const GROWTH: u16 = 16;

const ACCESS_REFUSED: u16 = 403;

/// Moves what leaves the delay queues of one task queue, on one connection.
pub(super) struct Scheduler<'a> {
    link: &'a Link,
    desk: &'a Desk,
    /// Which delay queues are there, from the lowest up.
    there: Vec<watch::Sender<bool>>,
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

impl<'a> Scheduler<'a> {
    pub(super) fn new(link: &'a Link, desk: &'a Arc<Desk>) -> Self {
        Scheduler {
            link,
            desk,
            there: (0..LEVELS).map(|_| watch::Sender::new(false)).collect(),
        }
    }

    /// Runs until it is asked to stop, and ends when nothing is half moved. Where it is dropped before,
    /// what it was moving may be delivered twice.
    pub(super) async fn run(&self, mut stopped: Stop) {
        tokio::select! {
            () = self.take_lock() => {}
            () = stopped.asked() => return,
        }
        join_all((0..LEVELS).map(|level| self.tend(level, stopped.clone()))).await;
    }

    async fn take_lock(&self) {
        let name = format!("{}.delay.lock", self.desk.queue);
        loop {
            if !self.is_there(&name).await
                && matches!(lock::try_lock(self.link, &name).await, Ok(true))
            {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a queue is there. What cannot be asked is not there; and never comes back from this when
    /// nothing may be published, by which we would lose the connection that publishes again and again.
    async fn is_there(&self, name: &str) -> bool {
        let Ok(outlet) = self.desk.publisher.outlet().await else {
            return false;
        };
        match outlet.knocks_at(name).await {
            Ok(is_there) => is_there,
            Err(NotPublished::Trouble(trouble)) if trouble.code == Some(ACCESS_REFUSED) => {
                std::future::pending().await
            }
            Err(_) => false,
        }
    }

    /// Moves what leaves one delay queue, whenever it is there.
    async fn tend(&self, level: u32, mut stopped: Stop) {
        let mut pace = Pace::new();
        let mut window = 1;
        self.find(level, &mut stopped).await;
        while !stopped.is_asked() {
            let next = match self.look(level, window, &mut stopped).await {
                Ok(next) => {
                    pace = Pace::new();
                    next
                }
                Err(trouble) => {
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
                    self.find(level, &mut stopped).await;
                    Next::Now(1)
                }
            };
            match next {
                Next::Now(next) => window = next,
                Next::At(leaves) => {
                    window = 1;
                    tokio::select! {
                        () = sleep_until(leaves) => {}
                        () = stopped.asked() => return,
                    }
                }
                Next::Never => return,
            }
        }
    }

    /// Waits until a delay queue is there.
    async fn find(&self, level: u32, stopped: &mut Stop) {
        let name = delay::level_name(&self.desk.queue, level);
        let find = async {
            // They are made from the lowest up, so that the lowest that is not there is looked for alone.
            let mut below = level
                .checked_sub(1)
                .map(|below| self.there[below as usize].subscribe());
            while !self.is_there(&name).await {
                match &mut below {
                    Some(below) if !*below.borrow() => {
                        // The sender is our own.
                        let _ = below.wait_for(|is_there| *is_there).await;
                    }
                    Some(_) | None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        self.there[level as usize].send_replace(false);
        tokio::select! {
            () = find => {}
            () = stopped.asked() => {}
        }
        self.there[level as usize].send_replace(true);
    }

    /// Takes from a delay queue for as long as what comes is to be moved.
    async fn look(&self, level: u32, window: u16, stopped: &mut Stop) -> Result<Next, Trouble> {
        let name = delay::level_name(&self.desk.queue, level);
        let (line, ledger) = Line::open(self.link, &name, window).await?;
        let (next, written) = tokio::join!(self.take(line, window, stopped), ledger.keep());
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
                delivered = line.stream.next(), if !is_over => {
                    let delivery = match delivered {
                        Some(delivered) => delivered?,
                        None if next.is_some() => {
                            is_over = true;
                            continue;
                        }
                        None => return Err(ended()),
                    };
                    let tag = delivery.delivery_tag;
                    if message::is_knock(&delivery.properties) {
                        line.settle(tag, Verdict::Ack);
                        continue;
                    }
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
        let passed_on = async {
            let properties = message::passed_on(&delivery.properties, stay)
                .map_err(|error| format!("{error:#}"))?;
            let publisher = &self.desk.publisher;
            let sent = publisher.publish(to, properties, &delivery.data, Patience::Bounded);
            sent.await.map_err(|why| why.text().to_owned())
        };
        let passed_on = passed_on.await.map_err(|text| Trouble { code: None, text });
        (delivery.delivery_tag, passed_on)
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
