//! [`ConfirmingChannel`]: publishes on one channel and gives each message the confirm that is its own. It
//! knows nothing of queues, nor of what is to be done about a message that was not taken.
//!
//! The client library numbers a message before it puts it in line, and does so apart, so that two threads that
//! publish at once may have each other's confirms. And it gives what the broker returns to whichever message
//! is confirmed next on the channel. So one loop publishes everything, and it reads of a returned message
//! where that was to go.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use super::connection::{Link, Trouble, answer};

/// The most that is put in line before the loop looks for confirms again.
const BATCH: usize = 64;

/// A channel in confirm mode.
pub(super) struct ConfirmingChannel {
    channel: Channel,
    outgoing: mpsc::UnboundedSender<(Outgoing, Told)>,
    // One loop, which ends with this.
    _publishing: JoinSet<()>,
}

/// What is published, and to which queue by the exchange without a name.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) route: String,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    /// It is returned if no queue takes it.
    pub(super) mandatory: bool,
}

/// What the broker said of a message.
#[derive(Debug)]
pub(super) enum Confirmed {
    /// It is the broker's now.
    Taken,
    /// A queue that it was to go to did not take it.
    Refused,
    /// There was no queue for it, or for another to the same queue that was under way at the time; and what
    /// the broker said.
    Returned(String),
}

type Answer = Result<Confirmed, Trouble>;
type Told = oneshot::Sender<Answer>;

impl ConfirmingChannel {
    pub(super) async fn open(link: &Link) -> Result<Self, Trouble> {
        let channel = link.channel().await?;
        answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let (outgoing, lined_up) = mpsc::unbounded_channel();
        let mut publishing = JoinSet::new();
        publishing.spawn(publish_all(channel.clone(), lined_up));
        Ok(ConfirmingChannel {
            channel,
            outgoing,
            _publishing: publishing,
        })
    }

    /// Publishes a message and returns when the broker has said what became of it. Whoever drops this leaves
    /// the message under way.
    ///
    /// # Errors
    /// When the channel is of no more use; the message may have arrived.
    pub(super) async fn publish(&self, message: Outgoing) -> Answer {
        let (told, answer) = oneshot::channel();
        // Where the loop is gone, what it was to tell is dropped.
        let _ = self.outgoing.send((message, told));
        answer
            .await
            .unwrap_or_else(|_| Err(ended("the channel was closed")))
    }

    /// The channel, for what is tied to it.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// Publishes until whoever sends is gone.
async fn publish_all(channel: Channel, mut lined_up: mpsc::UnboundedReceiver<(Outgoing, Told)>) {
    let mut flights = Flights::new(channel);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            count = lined_up.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                for (message, told) in batch.drain(..) {
                    flights.begin(message, told);
                }
            }
            () = flights.moved.some.notified() => {}
        }
        flights.land();
    }
}

/// The messages that are under way on a channel.
struct Flights {
    channel: Channel,
    under_way: HashMap<u64, Flight>,
    next: u64,
    moved: Arc<Moved>,
}

/// One message that is under way.
struct Flight {
    route: String,
    confirming: Confirming,
    waker: Waker,
    told: Told,
    /// What the broker said when it returned a message to this queue.
    returned: Option<String>,
}

type Confirming = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

impl Flights {
    fn new(channel: Channel) -> Self {
        Flights {
            channel,
            under_way: HashMap::new(),
            next: 0,
            moved: Arc::default(),
        }
    }

    /// Takes a message on. Its number on the channel is that of its place in line, since nobody else publishes there.
    fn begin(&mut self, message: Outgoing, told: Told) {
        let id = self.next;
        self.next += 1;
        let mover = Mover {
            id,
            moved: self.moved.clone(),
        };
        let flight = Flight {
            route: message.route.clone(),
            confirming: Box::pin(publish(self.channel.clone(), message)),
            waker: Arc::new(mover).into(),
            told,
            returned: None,
        };
        self.under_way.insert(id, flight);
        // What it does first is to be put in line.
        self.moved.note(id);
    }

    /// Tells of all that has been confirmed.
    ///
    /// What is returned comes before the confirm of the message that it is, and so does the confirm that the
    /// library gives it to. So when nothing more has been confirmed, all that was returned of these is known.
    fn land(&mut self) {
        let mut landed = Vec::new();
        loop {
            let moved = self.moved.take();
            if moved.is_empty() {
                break;
            }
            for id in moved {
                if let Some(confirmed) = self.confirmed(id) {
                    landed.push((id, confirmed));
                }
            }
        }
        for (_, confirmed) in &landed {
            if let Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) =
                confirmed
            {
                self.note_returned(returned);
            }
        }
        for (id, confirmed) in landed {
            if let Some(flight) = self.under_way.remove(&id) {
                flight.tell(confirmed);
            }
        }
    }

    fn confirmed(&mut self, id: u64) -> Option<lapin::Result<Confirmation>> {
        // One that has landed may still be moved.
        let flight = self.under_way.get_mut(&id)?;
        let mut context = Context::from_waker(&flight.waker);
        match flight.confirming.as_mut().poll(&mut context) {
            Poll::Ready(confirmed) => Some(confirmed),
            Poll::Pending => None,
        }
    }

    /// Any to the same queue may be the one: to publish one twice is better than not at all.
    fn note_returned(&mut self, returned: &BasicReturnMessage) {
        let route = returned.delivery.routing_key.as_str();
        for flight in self.under_way.values_mut() {
            if flight.route == route {
                flight.returned = Some(returned.reply_text.to_string());
            }
        }
    }
}

impl Flight {
    fn tell(self, confirmed: lapin::Result<Confirmation>) {
        let answer = match (confirmed, self.returned) {
            (Err(error), _) => Err(error.into()),
            (Ok(_), Some(why)) => Ok(Confirmed::Returned(why)),
            (Ok(Confirmation::Ack(_)), None) => Ok(Confirmed::Taken),
            (Ok(Confirmation::Nack(_)), None) => Ok(Confirmed::Refused),
            // Confirms are on from the start, so this is a channel that is none of ours.
            (Ok(Confirmation::NotRequested), None) => Err(ended("no confirm")),
        };
        // Whoever published it may not wait any more.
        let _ = self.told.send(answer);
    }
}

async fn publish(channel: Channel, message: Outgoing) -> lapin::Result<Confirmation> {
    let Outgoing {
        route,
        properties,
        body,
        mandatory,
    } = message;
    let options = BasicPublishOptions {
        mandatory,
        immediate: false,
    };
    let published = channel.basic_publish("".into(), route.into(), options, &body, properties);
    let confirm = published.await?;
    drop(body);
    confirm.await
}

/// Which messages may have been confirmed, in the order in which they were.
#[derive(Default)]
struct Moved {
    ids: Mutex<Vec<u64>>,
    some: Notify,
}

/// Says that something became of one message.
struct Mover {
    id: u64,
    moved: Arc<Moved>,
}

impl Moved {
    fn note(&self, id: u64) {
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Mover {
    fn wake(self: Arc<Self>) {
        self.moved.note(self.id);
        self.moved.some.notify_one();
    }
}

fn ended(text: &str) -> Trouble {
    Trouble {
        code: None,
        text: text.to_owned(),
    }
}
