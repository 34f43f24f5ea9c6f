//! The loader's sense of time, tested with instants that are made up.

use std::fs;
use std::sync::mpsc::{self, Receiver, sync_channel};

use tempfile::TempDir;

use super::super::order::Workbench;
use super::super::watch::Wake;
use super::super::{PluginRules, embedded};
use super::*;
use crate::event::Observer;
use crate::sandbox::{Limits, Sandbox, SandboxSettings};

struct Bench {
    directory: TempDir,
    loader: Loader,
    wakes: Receiver<Wake>,
    events: mpsc::Receiver<PluginEvent>,
    start: Instant,
}

struct Events(mpsc::Sender<PluginEvent>);

impl Observer for Events {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Plugin(event) = event {
            self.0.send((*event).clone()).unwrap();
        }
    }
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (done, wakes) = sync_channel(16);
        let (sender, events) = mpsc::channel();
        let sandbox = Sandbox::new(&SandboxSettings {
            slots: 1,
            ceiling: Limits::CEILING,
            threads: 1,
        });
        let rules = PluginRules::default();
        let (workbench, _) = Workbench::new(Arc::new(sandbox.unwrap()), &rules);
        let loader = Loader {
            directory: directory.path().to_owned(),
            max_size: workbench.max_size,
            built_in: Vec::new(),
            makers: Makers::start(&workbench, &done).unwrap(),
            current: Arc::default(),
            observers: Observers::new(vec![Box::new(Events(sender))]),
            patience: Patience::USUAL,
            entries: BTreeMap::new(),
            strays: BTreeMap::new(),
            trouble: None,
        };
        Bench {
            directory,
            loader,
            wakes,
            events,
            start: Instant::now(),
        }
    }

    fn write(&self, content: &[u8]) {
        // Another inode, so that no two versions could look the same.
        let aside = self.directory.path().join("aside");
        fs::write(&aside, content).unwrap();
        fs::rename(aside, self.directory.path().join("echo.wasm")).unwrap();
    }

    fn look(&mut self, millis: u64) -> Option<Duration> {
        self.loader.look(self.start + Duration::from_millis(millis))
    }

    /// Takes what the makers make next, at this time.
    fn take(&mut self, millis: u64) {
        match self.wakes.recv().unwrap() {
            Wake::Made(made) => self
                .loader
                .take(made, self.start + Duration::from_millis(millis)),
            Wake::Look => panic!("nobody watches"),
        }
    }

    fn serves(&self) -> Option<Arc<Plugin>> {
        self.loader.current.load().get(&"echo".parse().unwrap())
    }
}

fn version(number: u8) -> Vec<u8> {
    let mut wasm = embedded::echo().to_vec();
    wasm.extend_from_slice(&[0, 3, 1, b'v', number]);
    wasm
}

#[test]
fn a_compile_that_is_superseded_while_it_runs_is_not_installed() {
    let mut bench = Bench::new();
    bench.write(&version(1));
    bench.look(0);
    bench.look(40);
    assert!(bench.loader.is_loading());
    bench.write(&version(2));
    bench.look(50);
    bench.take(60);
    assert!(bench.serves().is_none());
    assert!(bench.events.try_recv().is_err());
    bench.look(90);
    bench.take(95);
    assert_eq!(bench.serves().unwrap().size, version(2).len() as u64);
}

#[test]
fn a_file_is_read_only_when_it_has_been_quiet() {
    let mut bench = Bench::new();
    for (millis, number) in [(0, 1), (30, 2), (60, 3)] {
        bench.write(&version(number));
        assert_eq!(bench.look(millis), Some(Patience::USUAL.to_load));
    }
    bench.look(99);
    assert!(!bench.loader.is_loading());
    bench.look(100);
    assert!(bench.loader.is_loading());
}

#[test]
fn what_a_stalling_copy_leaves_is_refused_only_when_it_stays_so() {
    let mut bench = Bench::new();
    let whole = version(1);
    for (step, share) in [4, 3, 2].into_iter().enumerate() {
        // Each stalls for longer than it takes to be read, and shorter than to be refused.
        let begun = step as u64 * 500;
        bench.write(&whole[..whole.len() / share]);
        bench.look(begun);
        bench.look(begun + 40);
        bench.take(begun + 50);
        bench.look(begun + 499);
    }
    assert!(bench.events.try_recv().is_err());
    bench.look(2000);
    match bench.events.try_recv() {
        Ok(PluginEvent::Refused { still_serving, .. }) => assert!(!still_serving),
        other => panic!("{other:?}"),
    }
    bench.look(9000);
    assert!(bench.events.try_recv().is_err(), "it was told again");
}

#[test]
fn a_file_that_cannot_be_read_is_tried_again_and_told_once() {
    let mut bench = Bench::new();
    let path = bench.directory.path().join("echo.wasm");
    // A regular file by its type, whose first page nobody can read.
    std::os::unix::fs::symlink("/proc/self/mem", path).unwrap();
    bench.look(0);
    bench.look(40);
    bench.take(1000);
    assert!(matches!(
        bench.events.try_recv(),
        Ok(PluginEvent::Refused { .. })
    ));
    assert_eq!(
        bench.look(1001),
        Some(READ_AGAIN - Duration::from_millis(1))
    );
    bench.look(6000);
    assert!(bench.loader.is_loading());
    bench.take(6001);
    assert!(bench.events.try_recv().is_err());
}

#[test]
fn a_directory_that_is_gone_for_a_moment_keeps_its_plugins() {
    let mut bench = Bench::new();
    bench.write(&version(1));
    bench.look(0);
    bench.look(40);
    bench.take(50);
    let away = bench.directory.path().with_extension("away");
    fs::rename(bench.directory.path(), &away).unwrap();
    bench.look(100);
    bench.look(900);
    assert!(bench.serves().is_some());
    bench.look(1100);
    bench.look(1140);
    assert!(bench.serves().is_none());
    fs::rename(away, bench.directory.path()).unwrap();
}
