//! [`Wire`]: a way to a broker that a test may cut, hold down and freeze, as networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Passes connections on to a broker.
pub(crate) struct Wire {
    url: String,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    is_down: AtomicBool,
    is_over: AtomicBool,
    lines: Mutex<Vec<Arc<Line>>>,
}

/// One connection through the wire.
struct Line {
    near: TcpStream,
    far: TcpStream,
    is_frozen: Mutex<bool>,
    thawed: Condvar,
}

impl Wire {
    /// A wire to the broker at this URL.
    pub(crate) fn to(url: &str) -> Wire {
        let target = url.rsplit(['/', '@']).next().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            is_down: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            lines: Mutex::default(),
        });
        let wire = Wire {
            url: url.replace(target, &format!("127.0.0.1:{port}")),
            port,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if !shared.is_down.load(Ordering::SeqCst) {
                    shared.connect(near);
                }
            }
        });
        wire
    }

    /// The broker's URL through the wire.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts every connection; new ones are let through.
    pub(crate) fn cut_all(&self) {
        for line in self.shared.lines.lock().unwrap().iter() {
            line.cut();
        }
    }

    /// Cuts one, counted from 0 in the order in which they were made.
    pub(crate) fn cut(&self, number: usize) {
        self.line(number).cut();
    }

    /// Cuts every connection and lets none through until [`Wire::let_up`].
    pub(crate) fn hold_down(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
        self.cut_all();
    }

    pub(crate) fn let_up(&self) {
        self.shared.is_down.store(false, Ordering::SeqCst);
    }

    /// Keeps what comes over one connection from the broker until it is cut.
    pub(crate) fn freeze(&self, number: usize) {
        *self.line(number).is_frozen.lock().unwrap() = true;
    }

    fn line(&self, number: usize) -> Arc<Line> {
        Arc::clone(&self.shared.lines.lock().unwrap()[number])
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut_all();
        // For the listener to look.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn connect(&self, near: TcpStream) {
        let Ok(far) = TcpStream::connect(&self.target) else {
            return;
        };
        let line = Arc::new(Line {
            near,
            far,
            is_frozen: Mutex::new(false),
            thawed: Condvar::new(),
        });
        let (there, back) = (Arc::clone(&line), Arc::clone(&line));
        std::thread::spawn(move || {
            pass(&there.near, &there.far, || there.wait_while_frozen());
            there.cut();
        });
        std::thread::spawn(move || {
            pass(&back.far, &back.near, || {});
            back.cut();
        });
        self.lines.lock().unwrap().push(line);
    }
}

impl Line {
    fn cut(&self) {
        // An error means that it is cut already.
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
        *self.is_frozen.lock().unwrap() = false;
        self.thawed.notify_all();
    }

    fn wait_while_frozen(&self) {
        let is_frozen = self.is_frozen.lock().unwrap();
        drop(self.thawed.wait_while(is_frozen, |frozen| *frozen).unwrap());
    }
}

/// Copies until either end is gone.
fn pass(mut from: &TcpStream, mut to: &TcpStream, wait: impl Fn()) {
    let mut bytes = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        wait();
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
