//! Compiling: in children that are bounded and end with their parent, and once for each plugin.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{self, Pid, Signal, WaitOptions};
use scutwork::event::PluginEvent;
use scutwork::plugin::compiler::cache::CacheSettings;
use scutwork::plugin::embedded;
use scutwork::plugin::registry::RegistrySettings;
use scutwork::sandbox::{Limits, Sandbox, SandboxSettings};
use tempfile::TempDir;

use crate::support::program::{PATIENCE, Place, Running};
use crate::support::shelf::{Shelf, open, settings, version};
use crate::support::wat;

/// A plugin of one function so long that compiling it takes many seconds and much memory.
fn bomb() -> Vec<u8> {
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (local.get 1)) (i32.const 7)))
                (local.set 1 (i32.load (i32.and (local.get 0) (i32.const 1023))))
                (if (local.get 1) (then (local.set 0 (local.get 1))))"
        .repeat(150_000);
    wat::plugin(&format!(
        r#"(memory (export "memory") 1)
        (func (param i32 i32) {body})
        (func (export "handle") (type $handle) (i32.const 256))"#
    ))
}

fn sandbox() -> Sandbox {
    Sandbox::new(&SandboxSettings {
        slots: 1,
        ceiling: Limits::CEILING,
        threads: 1,
    })
    .unwrap()
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

#[test]
fn a_compile_bomb_costs_one_child_and_the_operator_reads_why() {
    let bomb = bomb();
    for (bound, reason) in [
        (
            "time = \"1s\"",
            "compiling it took more than 1s of CPU; raise compile.time",
        ),
        (
            "memory = \"256MiB\"",
            "compiling it took more than 256MiB of memory; raise compile.memory",
        ),
    ] {
        let place = Place::new();
        place.plugin("echo", "");
        place.file("plugins/bomb.wasm", &bomb);
        place.file("scutwork.toml", format!("[compile]\n{bound}\n"));
        let ended = place.run(&["plugin", "list"]).exits(1);
        assert!(ended.text().contains("echo"), "{}", ended.text());
        ended.says(&["bomb.wasm", reason]);
    }
}

#[test]
fn a_compile_bomb_is_tried_again_with_other_bounds_or_a_day_later_and_not_at_every_start() {
    let place = Place::new();
    place.file("plugins/bomb.wasm", bomb());
    let bounds = |bounds: &str| {
        place.file(
            "scutwork.toml",
            format!("[compile]\ncache = \"cache\"\n{bounds}"),
        );
    };
    let list = || {
        let listed = place.run(&["plugin", "list"]).exits(1);
        listed
            .says(&["bomb.wasm: compiling it took more than"])
            .stderr
    };
    let failures = || {
        let mut found = entries(&place.path().join("cache"));
        found.retain(|path| path.extension().is_some_and(|ending| ending == "failure"));
        found
    };
    const KNOWN: &str = "this was found before";

    bounds("time = \"1s\"\n");
    let said = list();
    assert!(
        said.contains("1s of CPU") && !said.contains(KNOWN),
        "{said}"
    );
    let [failure] = failures().try_into().unwrap();
    let said = list();
    assert!(said.contains("1s of CPU") && said.contains(KNOWN), "{said}");
    // A command that runs it says the same, and so does the doctor.
    place.run(&["run", "bomb", "x"]).says(&["1s of CPU", KNOWN]);
    let told = place.run(&["doctor"]).text();
    for words in ["1s of CPU", KNOWN, "1 more could not be compiled"] {
        assert!(told.contains(words), "no {words:?} in: {told}");
    }

    let file = fs::File::options().append(true).open(&failure).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    file.set_modified(old).unwrap();
    let said = list();
    assert!(!said.contains(KNOWN), "not tried again after a day: {said}");
    assert!(list().contains(KNOWN));

    bounds("memory = \"256MiB\"\n");
    let said = list();
    assert!(
        said.contains("256MiB of memory") && !said.contains(KNOWN),
        "{said}"
    );
    assert_eq!(failures().len(), 2);
}

#[test]
fn a_child_that_compiles_is_bounded_and_ends_with_its_parent() {
    let place = Place::new();
    place.file("plugins/bomb.wasm", bomb());
    let mut parent = place.start(&["up"]);
    let child = until("a child compiles", || busy_child_of(&parent));
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
    for (limit, most) in [
        ("Max cpu time", "120"),
        ("Max file size", "0"),
        ("Max core file size", "0"),
        ("Max address space", "2147483648"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        let soft = line[limit.len()..].split_whitespace().next();
        assert_eq!(soft, Some(most), "{line}");
    }
    // Orphans come to this process, which can see then how they end.
    process::set_child_subreaper(Some(process::getpid())).unwrap();
    parent.kill();
    let child = Pid::from_raw(child.cast_signed());
    let (_, ended) = process::waitpid(child, WaitOptions::empty())
        .unwrap()
        .unwrap();
    process::set_child_subreaper(None).unwrap();
    assert_eq!(ended.terminating_signal(), Some(Signal::KILL.as_raw()));
}

/// A child of a program, once it has bounded itself.
fn busy_child_of(parent: &Running) -> Option<u32> {
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = format!("PPid:\t{}\n", parent.id());
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).ok()?;
        (status.contains(&parent) && limits.contains("2147483648")).then_some(id)
    });
    children.last()
}

/// Waits for what no event tells of, looking often.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_plugin_that_is_superseded_while_it_compiles_is_not_waited_for() {
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm", &bomb());
    shelf.put("echo.wasm", &version(1));
    shelf.expect_added("echo");
}

#[test]
fn what_is_slow_to_compile_keeps_the_rest_from_nothing() {
    let shelf = Shelf::with(
        |directory| fs::write(directory.join("echo.wasm"), bomb()).unwrap(),
        |settings| RegistrySettings {
            patience: Duration::ZERO,
            ..settings
        },
    );
    match shelf.next() {
        PluginEvent::Warned { warning, .. } => assert!(warning.contains("long to compile")),
        other => panic!("{other:?}"),
    }
    shelf.expect_added("dots");
    shelf.put("echo.wasm", &version(1));
    shelf.expect_added("echo");
}

#[test]
fn a_child_refuses_in_the_very_words_of_the_sandbox() {
    let sandbox = sandbox();
    let echo = embedded::echo();
    let mut flipped = echo.to_vec();
    flipped[200] ^= 0xff;
    let cases: [(&str, Vec<u8>); 5] = [
        ("short", echo[..echo.len() / 2].to_vec()),
        ("flipped", flipped),
        ("stranger", wat::stranger()),
        ("many", wat::plugin(&many_memories())),
        (
            "other",
            wat::assembled("scutwork:task/handler@9.0.0", ONE_MEMORY),
        ),
    ];
    let shelf = Shelf::with(
        |directory| {
            for (name, wasm) in &cases {
                fs::write(directory.join(format!("{name}.wasm")), wasm).unwrap();
            }
        },
        |settings| settings,
    );
    let refused = shelf.registry.refused();
    for (name, wasm) in cases {
        let expected = sandbox.prepare(&wasm).unwrap_err().to_string();
        let file = format!("/{name}.wasm");
        let seen = refused.iter().find(|seen| seen.file.ends_with(&file));
        assert_eq!(seen.map(|seen| &seen.reason), Some(&expected), "{name}");
    }
}

const ONE_MEMORY: &str = r#"(memory (export "memory") 1)
    (func (export "handle") (type $handle) (i32.const 256))"#;

/// More than the pool has for one plugin, which only the parent knows.
fn many_memories() -> String {
    format!("{ONE_MEMORY}{}", "(memory 1)".repeat(8))
}

#[test]
fn native_code_is_refused_whatever_its_name_is() {
    let native = sandbox().target().compile(embedded::echo()).unwrap();
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm", native.bytes());
    let reason = shelf.expect_refused("echo.wasm", false);
    assert!(reason.contains("precompiled native code"), "{reason}");
}

#[test]
fn what_was_compiled_once_is_loaded_from_the_cache_until_it_rots() {
    let place = Place::new();
    place.plugin("echo", "");
    place.file("scutwork.toml", "[compile]\ncache = \"cache\"\n");
    let cache = place.path().join("cache");
    let run = || {
        let ended = place.run(&["run", "echo", "hello"]).exits(0);
        assert_eq!(ended.text(), "hello");
    };
    run();
    let [entry] = entries(&cache).try_into().unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
    let written = || fs::metadata(&entry).unwrap().modified().unwrap();
    let (first, whole) = (written(), fs::read(&entry).unwrap());
    run();
    assert_eq!(written(), first, "compiled again");

    let mut rotten = whole.clone();
    let last = rotten.len() - 1;
    rotten[last] ^= 1;
    fs::write(&entry, rotten).unwrap();
    run();
    assert_eq!(fs::read(&entry).unwrap(), whole, "not made again");

    // What another ceiling compiles is another's.
    place.file(
        "scutwork.toml",
        "[compile]\ncache = \"cache\"\n[limits]\nmemory = \"2GiB\"\n",
    );
    run();
    assert_eq!(entries(&cache).len(), 2);
}

#[test]
fn processes_that_start_at_once_share_a_cache() {
    let place = Place::new();
    place.plugin("echo", "");
    place.file("scutwork.toml", "[compile]\ncache = \"cache\"\n");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| place.run(&["run", "echo", "hi"]).exits(0));
        }
    });
    assert_eq!(entries(&place.path().join("cache")).len(), 1);
}

#[test]
fn a_cache_that_cannot_be_used_is_told_once_and_done_without() {
    let place = Place::new();
    place.plugin("echo", "");
    place.file("no-directory", "");
    place.file(
        "scutwork.toml",
        "[compile]\ncache = \"no-directory/cache\"\n",
    );
    place.run(&["run", "echo", "hi"]).exits(0);
    let mut worker = place.start(&["up", "-v"]);
    worker.wait_for("no-directory/cache cannot be made");
    worker.wait_for("taking tasks");
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0));
    assert_eq!(said.matches("no-directory").count(), 1, "{said}");

    let cache = place.path().join("open");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    place.file("scutwork.toml", "[compile]\ncache = \"open\"\n");
    let mut worker = place.start(&["up", "-v"]);
    worker.wait_for("open can be written by others");
    worker.wait_for("taking tasks");
    assert_eq!(entries(&cache), Vec::<PathBuf>::new());
    let found = place.run(&["doctor"]).exits(0).text();
    assert!(found.contains("open can be written by others"), "{found}");
}

#[test]
fn bounds_that_cannot_be_meant_are_refused() {
    let place = Place::new();
    for (setting, reason) in [
        ("memory = \"1MiB\"", "compile.memory 1MiB is too little"),
        ("time = \"1ms\"", "compile.time 1ms is too short"),
        ("cache = 3", "a directory, or false"),
    ] {
        place.file("scutwork.toml", format!("[compile]\n{setting}\n"));
        place.run(&["plugin", "list"]).exits(78).says(&[reason]);
    }
    place.file("scutwork.toml", "[compile]\ncache = false\n");
    place.run(&["plugin", "list"]).exits(0);
}

#[test]
fn what_is_not_large_compiles_within_the_least_memory_that_may_be_set() {
    let place = Place::new();
    place.plugin("echo", "");
    let refused = "[compile]\nmemory = \"1MiB\"\n";
    place.file("scutwork.toml", refused);
    let said = place.run(&["plugin", "list"]).exits(78).stderr;
    let (_, least) = said.split_once("; set ").unwrap();
    let (least, _) = least.split_once(" or more").unwrap();
    place.file(
        "scutwork.toml",
        format!("[compile]\nmemory = \"{least}\"\ncache = false\n"),
    );
    place.run(&["plugin", "list"]).exits(0);
}

#[test]
fn the_program_gives_up_the_way_to_more_rights() {
    let place = Place::new();
    let mut worker = place.start(&["up", "-v"]);
    worker.wait_for("taking tasks");
    for thread in fs::read_dir(format!("/proc/{}/task", worker.id())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    worker.terminate();
    worker.wait();
}

/// Prints how long a worker takes to load plugins, the first time and after; what is asserted is that
/// it loads them all. `SCUTWORK_CACHED=100` loads a hundred.
#[test]
fn cached_plugins_load_fast() {
    let count = std::env::var("SCUTWORK_CACHED").map_or(10, |count| count.parse().unwrap());
    let directory = TempDir::new().unwrap();
    let cache = TempDir::new().unwrap();
    for number in 0..count {
        let file = directory.path().join(format!("echo-{number}.wasm"));
        fs::write(file, version(number)).unwrap();
    }
    let load = || {
        let mut settings = settings(directory.path());
        settings.rules.compile.cache = Some(CacheSettings::new(cache.path().join("cache")));
        let began = Instant::now();
        let (registry, _events) = open(settings).unwrap();
        assert_eq!(registry.list().len(), usize::from(count) + 1);
        began.elapsed()
    };
    let (compiled, cached) = (load(), load());
    eprintln!("{count} plugins and dots: {compiled:.1?} to compile, {cached:.1?} from the cache");
}
