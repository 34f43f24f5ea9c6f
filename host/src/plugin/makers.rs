//! [`Makers`]: the threads that make plugins: reading, checking and compiling take long, and nobody
//! who serves waits for them.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::order::{Order, Workbench, make};
use super::watch::Wake;

/// The threads.
pub(super) struct Makers(Arc<Orders>);

struct Orders {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    closed: bool,
}

impl Makers {
    /// Starts as many threads as there are cores. They end soon after this is dropped, and nobody
    /// waits for that: whose order is withdrawn breaks its work off.
    pub(super) fn start(workbench: &Workbench, done: &SyncSender<Wake>) -> io::Result<Self> {
        let makers = Makers(Arc::new(Orders {
            waiting: Mutex::default(),
            more: Condvar::new(),
        }));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let orders = Arc::clone(&makers.0);
            let (workbench, done) = (workbench.clone(), done.clone());
            thread::Builder::new()
                .name("plugin-maker".to_owned())
                .spawn(move || {
                    while let Some(order) = orders.next() {
                        // An error says that nobody is there any more.
                        if done.send(Wake::Made(make(order, &workbench))).is_err() {
                            break;
                        }
                    }
                })?;
        }
        Ok(makers)
    }

    /// Puts an order behind the others, and drops those that were withdrawn: so no more can wait
    /// than there are plugins.
    pub(super) fn order(&self, order: Order) {
        let mut waiting = self.0.lock();
        waiting
            .orders
            .retain(|order| order.claim.strong_count() > 0);
        waiting.orders.push_back(order);
        self.0.more.notify_one();
    }
}

impl Drop for Makers {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.more.notify_all();
    }
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Order> {
        let mut waiting = self
            .more
            .wait_while(self.lock(), |waiting| {
                waiting.orders.is_empty() && !waiting.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return None;
        }
        waiting.orders.pop_front()
    }
}
