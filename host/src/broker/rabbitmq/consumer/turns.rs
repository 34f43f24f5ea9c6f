//! [`Turn`]: what a consumer does on one connection, line after line.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::acks::{self, Acks};
use super::super::connection::{GOODBYE, Link, Trouble};
use super::super::hold::{Desk, RabbitHold};
use super::super::line::{Ledger, Line, Settled};
use super::super::pause::Seen;
use super::super::stop::Stop;
use super::super::{SettlementMode, consumer_timeout, message};
use super::{Source, release};
use crate::broker::{Delivery, Notice, Standing};
use crate::units::show_duration;

/// How long nothing may come, while nothing is held, before the subscription is made anew. A queue that
/// is deleted and made again at once can leave one behind that nothing comes by, and the broker does not
/// tell: it cancels those alone whose queue it still finds gone when it looks.
const SILENCE: Duration = Duration::from_secs(10);

/// How long after the last ack a line that is to end may take to fill. Where less comes, hardly anything can be on
/// its way.
const FILLED: Duration = Duration::from_millis(500);

/// How many deliveries are handed on before the next look at whether the line is to end. That look registers with
/// whatever may say so, and costs more than a delivery's own step.
const AT_ONCE: usize = 64;

/// How long the broker may send nothing by a line that it was asked to end. One that chews on a message can be
/// slow, and all that is held is given up with it; of a connection that is dead the heartbeat tells.
const LAST_SENT: Duration = Duration::from_secs(60);

/// What the lines of one connection are opened on.
pub(super) struct Ground<'a> {
    pub(super) link: &'a Link,
    /// Where every line's ledger goes.
    pub(super) ledgers: mpsc::UnboundedSender<Ledger>,
}

/// Why a subscription, or the wait for one, came to its end in order.
enum Turn {
    Stopped,
    Paused,
    Resumed,
    /// There is another line, and this one is to end.
    Renewed {
        fresh: Box<Line>,
        old: Box<Line>,
    },
}

impl Source {
    /// Hands deliveries to the consumer, but none while the queue is paused, until it is stopped; then
    /// waits without end while what was handed out is settled. Returns why a line broke.
    pub(super) async fn hand_out(
        &self,
        ground: Ground<'_>,
        mut line: Option<Line>,
        deliveries: &mut Option<mpsc::Sender<Delivery>>,
        stopped: &mut Stop,
        paused: Option<watch::Receiver<bool>>,
    ) -> String {
        let Some(sender) = deliveries.clone() else {
            return "stopped".to_owned();
        };
        let mut paused = Seen(paused);
        let mut ending = FuturesUnordered::new();
        loop {
            let turn = {
                let taking = async {
                    match line.take() {
                        Some(line) => {
                            self.take(&ground, line, &sender, stopped, &mut paused)
                                .await
                        }
                        None => Ok(tokio::select! {
                            () = stopped.asked() => Turn::Stopped,
                            () = paused.becomes(false) => Turn::Resumed,
                        }),
                    }
                };
                let mut taking = pin!(taking);
                loop {
                    tokio::select! {
                        turn = &mut taking => break turn,
                        Some(ended) = ending.next() => match ended {
                            Ok(()) => {}
                            Err(why) => return why,
                        },
                    }
                }
            };
            match turn {
                Ok(Turn::Stopped) => break,
                Ok(Turn::Paused) => {
                    (self.desk.notices)(Notice::Paused(self.desk.queue.clone()));
                }
                Ok(Turn::Resumed) => match self.line(&ground).await {
                    Ok(resumed) => {
                        line = Some(resumed);
                        (self.desk.notices)(Notice::Connected(self.desk.queue.clone()));
                    }
                    Err(why) => return why,
                },
                Ok(Turn::Renewed { fresh, old }) => {
                    line = Some(*fresh);
                    ending.push(self.end(*old, &sender));
                }
                Err(why) => return why,
            }
        }
        while let Some(ended) = ending.next().await {
            if let Err(why) = ended {
                return why;
            }
        }
        drop(ending);
        *deliveries = None;
        drop((sender, ground));
        std::future::pending().await
    }

    /// Takes from one line and ends it when asked to, or leaves that to its caller when there is to be another:
    /// for a prefetch that differs, which a quorum queue gives to new subscriptions alone, or in silence.
    ///
    /// # Errors
    /// Why the line broke.
    async fn take(
        &self,
        ground: &Ground<'_>,
        mut line: Line,
        sender: &mpsc::Sender<Delivery>,
        stopped: &mut Stop,
        paused: &mut Seen,
    ) -> Result<Turn, String> {
        let mut wanted = self.prefetch.clone();
        let turn = loop {
            tokio::select! {
                biased;
                () = stopped.asked() => break Turn::Stopped,
                () = paused.becomes(true) => break Turn::Paused,
                () = differs(&mut wanted, line.prefetch) => return self.renew(ground, line).await,
                next = line.next() => self.hand_on_all(next, &mut line, sender).await?,
                // What is held may be what keeps the broker from sending more.
                () = tokio::time::sleep(SILENCE) => if line.is_idle() {
                    return self.renew(ground, line).await;
                },
            }
        };
        self.end(line, sender).await?;
        Ok(turn)
    }

    /// Opens the next line before this one ends: a queue may go away with its last subscription.
    async fn renew(&self, ground: &Ground<'_>, old: Line) -> Result<Turn, String> {
        Ok(Turn::Renewed {
            fresh: Box::new(self.line(ground).await?),
            old: Box::new(old),
        })
    }

    /// Ends a line, and hands out what still comes by it: to put it back would count as a crash.
    ///
    /// A quorum queue takes back what it sends while a subscription ends, and counts a return. So acks
    /// are kept back until the broker has sent all that it may, and nothing can be on its way.
    ///
    /// # Errors
    /// Why the line broke.
    async fn end(&self, mut line: Line, sender: &mpsc::Sender<Delivery>) -> Result<(), String> {
        if let Some(halted) = line.halt().await {
            let mut waited = pin!(tokio::time::sleep_until(halted.since + FILLED));
            while !line.is_full(&halted) {
                tokio::select! {
                    next = line.next() => match next {
                        Some(next) => self.hand_on(next, &line, sender).await?,
                        // The broker has ended it. A stream says so once.
                        None => return Ok(()),
                    },
                    () = &mut waited => break,
                }
            }
            let mut cancelled = pin!(line.cancel());
            loop {
                tokio::select! {
                    biased;
                    answer = &mut cancelled => {
                        answer.map_err(|trouble| self.explain(trouble))?;
                        break;
                    }
                    next = line.next() => match next {
                        Some(next) => self.hand_on(next, &line, sender).await?,
                        // It may be seen before the answer, and is said once.
                        None => return Ok(()),
                    },
                    () = tokio::time::sleep(LAST_SENT) => return Err(format!(
                        "the broker did not end a subscription, and sent nothing for {}",
                        show_duration(LAST_SENT)
                    )),
                }
            }
        }
        while let Some(next) = line.next().await {
            self.hand_on(next, &line, sender).await?;
        }
        Ok(())
    }

    /// Hands a delivery to the consumer, and what has come after it.
    ///
    /// # Errors
    /// Why the line broke, or ended.
    async fn hand_on_all(
        &self,
        first: Option<lapin::Result<lapin::message::Delivery>>,
        line: &mut Line,
        sender: &mpsc::Sender<Delivery>,
    ) -> Result<(), String> {
        let mut next = first;
        for together in 1.. {
            let Some(came) = next else {
                return Err(format!(
                    "the broker ended the subscription to queue `{}`; it was deleted, or a task was unsettled for too long",
                    self.desk.queue
                ));
            };
            self.hand_on(came, line, sender).await?;
            if together == AT_ONCE {
                break;
            }
            match line.next().now_or_never() {
                Some(another) => next = another,
                None => break,
            }
        }
        Ok(())
    }

    /// Hands one delivery of a line to the consumer.
    ///
    /// # Errors
    /// Why the line broke.
    async fn hand_on(
        &self,
        next: lapin::Result<lapin::message::Delivery>,
        line: &Line,
        sender: &mpsc::Sender<Delivery>,
    ) -> Result<(), String> {
        let delivered = next.map_err(|error| self.explain(error.into()))?;
        // Whoever closes the other end has asked us to stop.
        let _ = sender.send(self.delivery(delivered, &line.acks)).await;
        Ok(())
    }

    /// Opens another line, to a queue that may have been made anew.
    async fn line(&self, ground: &Ground<'_>) -> Result<Line, String> {
        let Desk { queue, .. } = &*self.desk;
        let prefetch = *self.prefetch.borrow();
        let opened = Line::open(ground.link, queue.as_str(), prefetch).await;
        opened
            .map(|opened| ground.lay(opened))
            .map_err(|trouble| self.explain(trouble))
    }

    /// Waits until the queue has done all that was written on these lines, and closes their channels: were one only
    /// dropped, the library would close it while the connection is closed, and break the connection over that.
    pub(super) async fn see_done(&self, lines: Vec<Settled>) {
        for line in lines {
            if line.is_unsure() {
                self.ask(&line).await;
            }
            // A broker that does not answer is not waited for: nothing depends on it.
            let _ = timeout(GOODBYE, line.close()).await;
        }
    }

    /// Waits until the queue has done all that was written on a line. What it answers with goes back as what was not
    /// handed out does.
    async fn ask(&self, line: &Settled) {
        let queue = &self.desk.queue;
        let got = match line.ask(queue.as_str()).await {
            Ok(Some(got)) => got,
            Ok(None) => return,
            Err(trouble) => {
                (self.desk.notices)(Notice::Warning(format!(
                    "queue `{queue}` does not tell whether it has what was acked last: {}; tasks that ended may be run again",
                    trouble.text
                )));
                return;
            }
        };
        let (acks, mut entries) = mpsc::unbounded_channel();
        let delivery = self.delivery(got, &acks);
        drop(acks);
        let prefetch = *self.prefetch.borrow();
        let writing = acks::write(&line.channel, prefetch, &mut entries);
        let _ = tokio::join!(writing, release(delivery));
    }

    pub(super) fn explain(&self, trouble: Trouble) -> String {
        consumer_timeout::explain(&trouble, self.desk.consumer_timeout).unwrap_or(trouble.text)
    }

    fn delivery(&self, delivered: lapin::message::Delivery, acks: &Acks) -> Delivery {
        let original = delivered.properties;
        Delivery {
            message: message::read(&original, delivered.data),
            crashes: message::crashes(&original, delivered.redelivered),
            standing: match self.desk.mode {
                SettlementMode::Standard => Standing::Ordinary,
                SettlementMode::Native => Standing::Native,
            },
            hold: Box::new(RabbitHold {
                desk: self.desk.clone(),
                acks: acks.clone(),
                tag: delivered.delivery_tag,
                original,
            }),
        }
    }
}

/// Waits until another prefetch is wanted than this. Cancel safe.
async fn differs(wanted: &mut watch::Receiver<u16>, prefetch: u16) {
    if wanted.wait_for(|wanted| *wanted != prefetch).await.is_err() {
        // Nobody can want another one any more.
        std::future::pending().await
    }
}

impl Ground<'_> {
    /// Has the line's ledger kept.
    pub(super) fn lay(&self, (line, ledger): (Line, Ledger)) -> Line {
        // Whoever keeps them ends no sooner than the connection.
        let _ = self.ledgers.send(ledger);
        line
    }
}
