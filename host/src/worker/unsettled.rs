//! [`Unsettled`]: a delivery that has had its attempt, until the broker knows what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::runs::{Begun, Ending};
use crate::broker::{Delivery, Message, Record, SettleError};
use crate::event::Event;
use crate::outcome::Usage;
use crate::settlement::Settlement;

/// A delivery that has had its attempt, and what is left to do about it.
pub(super) struct Unsettled {
    delivery: Delivery,
    /// What it comes to for the task.
    settlement: Arc<Settlement>,
    /// What the broker is told. None: the same.
    told: Option<Arc<Settlement>>,
    usage: Option<Usage>,
    /// The run, which goes on for others until the broker was told.
    begun: Option<Begun>,
    /// How it ended is kept for when the broker could not be told.
    is_kept: bool,
    /// What it publishes is confirmed.
    is_published: bool,
}

impl Unsettled {
    /// What a delivery comes to. Nothing is kept of it.
    pub(super) fn new(delivery: Delivery, settlement: Settlement, usage: Option<Usage>) -> Self {
        Unsettled {
            delivery,
            settlement: Arc::new(settlement),
            told: None,
            usage,
            begun: None,
            is_kept: false,
            is_published: false,
        }
    }

    /// A task that was not run and goes back to the queue. Whoever gets it again may well do the same again.
    pub(super) fn put_back(delivery: Delivery, after: Duration, record: Record) -> Self {
        Unsettled::new(delivery, Settlement::Release { after, record }, None)
    }

    /// The same, of a run that goes on until the broker is told. If `is_kept`, how it ended is kept where that fails.
    pub(super) fn of_run(self, begun: Begun, is_kept: bool) -> Self {
        Unsettled {
            begun: Some(begun),
            is_kept,
            ..self
        }
    }

    /// One whose task ended here before.
    pub(super) fn ended_before(mut delivery: Delivery, ending: Ending, begun: Begun) -> Self {
        let Ending {
            settlement,
            is_published,
        } = ending;
        // The id that the run had, if it was made up.
        let task = settlement.reply().map(|reply| reply.task.clone());
        delivery.message.id = delivery.message.id.take().or(task);
        let told = match (is_published, settlement.reply()) {
            (true, Some(reply)) => {
                // All else is done: that nobody is there to reply to leaves the ack alone.
                delivery.message.reply_to = None;
                Some(Arc::new(Settlement::Done {
                    reply: reply.clone(),
                }))
            }
            (true, None) | (false, _) => None,
        };
        Unsettled {
            delivery,
            settlement,
            told,
            usage: None,
            begun: Some(begun),
            is_kept: true,
            is_published,
        }
    }

    /// Tells the broker, and observers. Little is kept for it meanwhile, for there may be very many.
    pub(super) fn settle(self, shared: &Shared) -> impl Future<Output = ()> + Send + use<'_> {
        let Unsettled {
            delivery,
            settlement,
            told,
            usage,
            begun,
            is_kept,
            is_published,
        } = self;
        let Message {
            id, plugin, record, ..
        } = &delivery.message;
        let (id, plugin, attempt) = (id.clone(), plugin.clone(), record.attempt);
        let settling = delivery.settle(told.unwrap_or_else(|| settlement.clone()));
        async move {
            let began = Instant::now();
            let settled = settling.await;
            let run = shared.named(id.as_deref(), plugin.as_deref(), attempt);
            let error = match settled {
                Ok(()) => {
                    shared.observers.tell(&Event::Settled {
                        run,
                        settlement: &settlement,
                        usage,
                        took: began.elapsed(),
                    });
                    return;
                }
                Err(error) => error,
            };
            shared.observers.tell(&Event::NotSettled {
                run,
                error: &error.to_string(),
            });
            if let (Some(begun), true) = (begun, is_kept) {
                begun.end_with(Ending {
                    settlement,
                    is_published: is_published || matches!(error, SettleError::Unacked),
                });
            }
        }
    }
}
