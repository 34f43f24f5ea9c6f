//! [`Watch`]: the loop that notices changes in the plugin directory. What they mean is the loader's
//! business.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::oneshot;

use super::loader::Loader;
use super::order::Made;

/// The least time between two looks: one write is many notices.
const BREATH: Duration = Duration::from_millis(10);

/// What ends the loop's sleep.
pub(super) enum Wake {
    /// Something in the directory may have changed, or the watch ends.
    Look,
    /// A compiler is done.
    Made(Made),
}

/// The loop that follows the plugin directory. Dropping it stops the loop without waiting for it.
pub struct Watch {
    wakes: SyncSender<Wake>,
    stopping: Arc<AtomicBool>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Watch {
    pub(super) fn start(
        loader: Loader,
        wakes: Receiver<Wake>,
        sender: SyncSender<Wake>,
        rescan: Duration,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let mut watching = Watching {
            notices: Notices::new(loader.directory.clone(), sender.clone()),
            loader,
            wakes,
            stopping: Arc::clone(&stopping),
            rescan,
        };
        thread::Builder::new()
            .name("plugins".to_owned())
            .spawn(move || {
                watching.run();
                drop(watching);
                // An error says that nobody waits for the end.
                let _ = end.send(());
            })?;
        Ok(Watch {
            wakes: sender,
            stopping,
            ended: Some(ended),
        })
    }

    /// Stops the loop and waits for its end. What is being compiled meanwhile is dropped; the
    /// registry goes on serving what it has.
    pub async fn stop(mut self) {
        self.signal();
        if let Some(ended) = self.ended.take() {
            // An error says that the loop has ended, too.
            let _ = ended.await;
        }
    }

    fn signal(&self) {
        self.stopping.store(true, Ordering::Release);
        // Where there is no room, the loop has wakes to come, and sees the flag then.
        let _ = self.wakes.try_send(Wake::Look);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal();
    }
}

struct Watching {
    loader: Loader,
    notices: Notices,
    wakes: Receiver<Wake>,
    stopping: Arc<AtomicBool>,
    rescan: Duration,
}

impl Watching {
    fn run(&mut self) {
        let mut last_look = Instant::now();
        let mut next_look = last_look;
        while !self.stopping.load(Ordering::Acquire) {
            let wait = next_look.saturating_duration_since(Instant::now());
            match self.wakes.recv_timeout(wait) {
                Ok(Wake::Look) => next_look = next_look.min(last_look + BREATH),
                Ok(Wake::Made(made)) => {
                    // A look before: it may have been superseded while it was made.
                    self.loader.look(Instant::now());
                    self.loader.take(made, Instant::now());
                    next_look = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_look {
                // Before the look, so that nothing can happen between the two unnoticed.
                if let Some(warning) = self.notices.follow() {
                    self.loader.warn(warning);
                }
                last_look = Instant::now();
                let due = self.loader.look(last_look);
                next_look =
                    last_look + due.map_or(self.rescan, |due| due.max(BREATH).min(self.rescan));
            }
        }
    }
}

/// The operating system's notices of changes in one directory, which is followed when another takes
/// its path.
struct Notices {
    directory: PathBuf,
    wakes: SyncSender<Wake>,
    /// Device and inode of the directory that is watched or could not be, so that each failure is
    /// told once.
    identity: Option<(u64, u64)>,
    /// Kept for its drop, which ends the notices.
    watcher: Option<RecommendedWatcher>,
}

impl Notices {
    fn new(directory: PathBuf, wakes: SyncSender<Wake>) -> Self {
        Notices {
            directory,
            wakes,
            identity: None,
            watcher: None,
        }
    }

    /// Turns to the directory that has the path now. Returns a warning when there will be no notices;
    /// changes are then seen by looking now and again.
    fn follow(&mut self) -> Option<String> {
        let identity = fs::metadata(&self.directory)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if identity == self.identity {
            return None;
        }
        self.identity = identity;
        self.watcher = None;
        identity?;
        match watch(&self.directory, self.wakes.clone()) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                None
            }
            Err(error) => Some(format!(
                "the system gives no notice of changes ({error}); new plugins are seen a little later"
            )),
        }
    }
}

fn watch(directory: &Path, wakes: SyncSender<Wake>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error (an overflow, say) means that something was missed.
        if event.map_or(true, |event| is_change(event.kind)) {
            // Where there is no room, a look is to come anyway.
            let _ = wakes.try_send(Wake::Look);
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reading is no change, and the loader reads.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
