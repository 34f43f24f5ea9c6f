//! [`signs`]: what a bench waits for of all that a worker tells.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::event::{Event, Observer};

/// Passes on what somebody waits for.
struct Watch<T, F> {
    sign: F,
    signs: UnboundedSender<T>,
}

impl<T, F> Observer for Watch<T, F>
where
    T: Send,
    F: Fn(&Event<'_>) -> Option<T> + Send + Sync,
{
    fn observe(&self, event: &Event<'_>) {
        if let Some(sign) = (self.sign)(event) {
            // The bench may be over already.
            let _ = self.signs.send(sign);
        }
    }
}

/// An observer that makes a sign of each event that is one, and where they come.
pub(super) fn signs<T: Send + 'static>(
    sign: impl Fn(&Event<'_>) -> Option<T> + Send + Sync + 'static,
) -> (Box<dyn Observer>, UnboundedReceiver<T>) {
    let (signs, receiver) = unbounded_channel();
    (Box::new(Watch { sign, signs }), receiver)
}
