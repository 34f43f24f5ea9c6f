//! Plugins that appear, change, break and go while a worker runs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use scutwork::event::PluginEvent;
use scutwork::plugin::registry::{Directory, RegistrySettings};
use scutwork::plugin::{Origin, embedded};
use scutwork::sandbox::Limits;
use tempfile::TempDir;

use crate::support::shelf::{Shelf, name, open, settings, version};

#[test]
fn what_is_built_in_serves_without_any_file() {
    let directory = TempDir::new().unwrap();
    let (registry, _events) = open(settings(directory.path())).unwrap();
    let served = registry.list();
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].name.as_str(), "dots");
    assert_eq!(served[0].origin, Origin::BuiltIn);
    assert_eq!(served[0].size, embedded::dots().len() as u64);
}

#[test]
fn a_named_directory_that_is_missing_is_an_error_that_names_the_fix() {
    let parent = TempDir::new().unwrap();
    let error = open(settings(&parent.path().join("plugins")))
        .err()
        .unwrap();
    let text = format!("{error:#}");
    assert!(text.contains("does not exist"), "{text}");
    assert!(text.contains("mkdir"), "{text}");
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(settings(&file)).err().unwrap();
    assert!(format!("{error:#}").contains("cannot be listed"));
}

#[test]
fn the_usual_directory_is_noticed_when_it_appears_and_when_another_takes_its_place() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("plugins");
    let (registry, events) = open(RegistrySettings {
        directory: Directory::Usual(path.clone()),
        rescan: Duration::from_millis(20),
        ..RegistrySettings::default()
    })
    .unwrap();
    let shelf = Shelf::follow(parent, registry, events);
    shelf.expect_added("dots");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("echo.wasm"), version(1)).unwrap();
    let first = shelf.expect_added("echo");

    let aside = shelf.path("plugins.new");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("echo.wasm"), version(2)).unwrap();
    fs::rename(&path, shelf.path("plugins.old")).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_ne!(shelf.expect_replaced("echo").digest, first.digest);

    fs::remove_dir_all(&path).unwrap();
    shelf.expect_removed("echo");
}

#[test]
fn a_plugin_is_added_replaced_and_removed_while_its_runs_keep_theirs() {
    let shelf = Shelf::empty().settled();
    fs::write(shelf.path("echo.wasm"), version(1)).unwrap();
    let first = shelf.expect_added("echo");
    assert_eq!(first.origin, Origin::File(shelf.path("echo.wasm")));
    // In place, over the same file.
    fs::write(shelf.path("echo.wasm"), version(2)).unwrap();
    let second = shelf.expect_replaced("echo");
    // Renamed over it.
    shelf.put("echo.wasm", &version(3));
    let third = shelf.expect_replaced("echo");
    assert_ne!(first.digest, second.digest);
    assert_ne!(second.digest, third.digest);
    fs::remove_file(shelf.path("echo.wasm")).unwrap();
    shelf.expect_removed("echo");
    assert_eq!(first.name.as_str(), "echo");
}

#[test]
fn a_file_takes_the_place_of_what_is_built_in_and_gives_it_back() {
    let shelf = Shelf::empty().settled();
    shelf.put("dots.wasm", &version(1));
    let own = shelf.expect_replaced("dots");
    assert_eq!(own.origin, Origin::File(shelf.path("dots.wasm")));
    fs::remove_file(shelf.path("dots.wasm")).unwrap();
    let back = shelf.expect_replaced("dots");
    assert_eq!(back.origin, Origin::BuiltIn);
    assert_eq!(back.size, embedded::dots().len() as u64);
}

#[test]
fn a_manifest_change_takes_effect_without_compiling_again() {
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm", &version(1));
    let before = shelf.expect_added("echo");
    assert_eq!(before.manifest.limits.memory, 64 << 20);
    shelf.put("echo.toml", b"[limits]\nmemory = \"128MiB\"");
    match shelf.next() {
        PluginEvent::Replaced {
            digest,
            compiled_in,
            ..
        } => assert_eq!(
            (digest, compiled_in),
            (before.digest.clone(), Duration::ZERO)
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(shelf.get("echo").unwrap().manifest.limits.memory, 128 << 20);

    shelf.put("echo.toml", b"\n[limits]\nmemroy = 1");
    let reason = shelf.expect_refused("echo.toml:3", true);
    assert!(reason.contains("did you mean limits.memory?"), "{reason}");
    assert_eq!(shelf.get("echo").unwrap().manifest.limits.memory, 128 << 20);

    fs::remove_file(shelf.path("echo.toml")).unwrap();
    shelf.expect_replaced("echo");
    assert_eq!(shelf.get("echo").unwrap().manifest, before.manifest);
    assert_eq!(shelf.registry.refused(), []);
}

#[test]
fn a_limit_over_the_operators_ceiling_is_lowered_with_a_warning() {
    let shelf = Shelf::with(
        |directory| {
            fs::write(directory.join("dots.toml"), "[limits]\nmemory = \"2GiB\"").unwrap();
        },
        |settings| settings,
    );
    match shelf.next() {
        PluginEvent::Added { name, .. } => assert_eq!(name.as_str(), "dots"),
        other => panic!("{other:?}"),
    }
    match shelf.next() {
        PluginEvent::Warned { file, warning } => {
            assert!(file.ends_with("dots.toml"), "{file}");
            assert!(warning.contains("limits.memory 2GiB"), "{warning}");
        }
        other => panic!("{other:?}"),
    }
    let limits = shelf.get("dots").unwrap().manifest.limits;
    assert_eq!(limits.memory, Limits::CEILING.memory);
}

#[test]
fn a_swapped_config_map_replaces_its_plugins() {
    let shelf = Shelf::with(
        |directory| {
            fs::create_dir(directory.join("..2026_01")).unwrap();
            fs::write(directory.join("..2026_01/echo.wasm"), version(1)).unwrap();
            symlink("..2026_01", directory.join("..data")).unwrap();
            symlink("..data/echo.wasm", directory.join("echo.wasm")).unwrap();
        },
        |settings| settings,
    );
    let first = shelf.get("echo").unwrap();
    let shelf = shelf.settled();
    fs::create_dir(shelf.path("..2026_02")).unwrap();
    fs::write(shelf.path("..2026_02/echo.wasm"), version(2)).unwrap();
    symlink("..2026_02", shelf.path("..data_tmp")).unwrap();
    fs::rename(shelf.path("..data_tmp"), shelf.path("..data")).unwrap();
    fs::remove_dir_all(shelf.path("..2026_01")).unwrap();
    assert_ne!(shelf.expect_replaced("echo").digest, first.digest);
}

#[test]
fn a_half_copied_file_is_refused_once_and_loaded_when_it_is_whole() {
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm", &version(1));
    let first = shelf.expect_added("echo");
    let whole = version(2);
    let half = &whole[..whole.len() / 2];
    fs::write(shelf.path("echo.wasm"), half).unwrap();
    shelf.expect_refused("echo.wasm", true);
    assert_eq!(shelf.get("echo").unwrap().digest, first.digest);
    // The same content again is no news; the rest of the file is.
    shelf.put("echo.wasm", half);
    let mut file = OpenOptions::new()
        .append(true)
        .open(shelf.path("echo.wasm"))
        .unwrap();
    file.write_all(&whole[half.len()..]).unwrap();
    drop(file);
    assert_ne!(shelf.expect_replaced("echo").digest, first.digest);
    assert_eq!(shelf.registry.refused(), []);
}

#[test]
fn a_copy_in_pieces_is_one_event() {
    let shelf = Shelf::empty().settled();
    let whole = version(1);
    let file = fs::File::create(shelf.path("echo.wasm")).unwrap();
    let mut at = 0;
    let begun = Instant::now();
    // As long as the pieces come, each a change, nothing is refused: more than one settling time.
    while begun.elapsed() < Duration::from_millis(150) {
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
        at += 1;
        std::thread::yield_now();
        if at == whole.len() - 1 {
            break;
        }
    }
    file.write_all_at(&whole[at..], at as u64).unwrap();
    drop(file);
    shelf.expect_added("echo");
    assert!(shelf.events.try_recv().is_err());
}

#[test]
fn what_can_be_no_plugin_is_refused_with_its_reason() {
    let shelf = Shelf::with(
        |directory| {
            let at = |file: &str| directory.join(file);
            fs::create_dir(at("directory.wasm")).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe.wasm"), rustix::fs::Mode::RWXU).unwrap();
            drop(UnixListener::bind(at("socket.wasm")).unwrap());
            symlink("/dev/null", at("device.wasm")).unwrap();
            symlink("nowhere", at("dangling.wasm")).unwrap();
            symlink("loop.wasm", at("loop.wasm")).unwrap();
            symlink("/proc/self/mem", at("unreadable.wasm")).unwrap();
            fs::write(at("big.wasm"), vec![0; 2 << 20]).unwrap();
            fs::write(at("native.cwasm"), "").unwrap();
            fs::write(at("SHOUT.WASM"), "").unwrap();
            fs::write(at("two words.wasm"), "").unwrap();
            fs::write(at("text.wasm"), "hello").unwrap();
            fs::write(at("empty.wasm"), "").unwrap();
            fs::write(at("echo.wasm"), version(1)).unwrap();
            fs::write(at("greedy.wasm"), version(1)).unwrap();
            fs::write(
                at("greedy.toml"),
                "[files]\n\"/data\" = { path = \"/nowhere/at/all\" }",
            )
            .unwrap();
        },
        |mut settings| {
            settings.rules.compile.max_file = 1 << 20;
            settings
        },
    );
    let expected = [
        ("directory.wasm", "a directory"),
        ("pipe.wasm", "a named pipe"),
        ("socket.wasm", "a socket"),
        ("device.wasm", "a device"),
        ("dangling.wasm", "symlink to nowhere"),
        ("loop.wasm", "symlink to loop.wasm"),
        ("unreadable.wasm", "cannot be read"),
        ("big.wasm", "2MiB are over the limit of 1MiB"),
        ("native.cwasm", "native code"),
        ("SHOUT.WASM", "rename it to SHOUT.wasm"),
        ("two words.wasm", "not allowed"),
        ("text.wasm", "not WebAssembly"),
        ("empty.wasm", "empty"),
        (
            "greedy.toml",
            "the directory /nowhere/at/all cannot be read",
        ),
    ];
    let refused = shelf.registry.refused();
    for (file, reason) in expected {
        let seen = refused
            .iter()
            .find(|seen| seen.file.ends_with(&format!("/{file}")));
        let seen = seen.unwrap_or_else(|| panic!("{file} is not refused"));
        assert!(
            seen.reason.contains(reason),
            "{}: {}",
            seen.file,
            seen.reason
        );
    }
    assert_eq!(refused.len(), expected.len(), "{refused:#?}");
    // Each was told once, and the good one among them serves.
    let told = shelf
        .events
        .try_iter()
        .filter(|event| matches!(event, PluginEvent::Refused { .. }))
        .count();
    assert_eq!(told, expected.len());
    assert!(shelf.get("echo").is_some());
}

#[test]
fn a_refused_file_that_comes_right_is_refused_no_more() {
    let shelf = Shelf::with(
        |directory| symlink("late", directory.join("echo.wasm")).unwrap(),
        |settings| settings,
    )
    .settled();
    assert_eq!(shelf.registry.refused().len(), 1);
    fs::write(shelf.path("late"), version(1)).unwrap();
    shelf.expect_added("echo");
    assert_eq!(shelf.registry.refused(), []);
}

#[test]
fn editors_temporary_files_are_nothing() {
    let shelf = Shelf::empty().settled();
    for file in [
        ".echo.wasm.swp",
        "echo.wasm~",
        ".#echo.wasm",
        "4913",
        "echo.wasm.tmp",
        ".echo.wasm",
    ] {
        fs::write(shelf.path(file), "half").unwrap();
    }
    shelf.put("echo.wasm", &version(1));
    shelf.expect_added("echo");
    assert_eq!(shelf.registry.refused(), []);
}

#[test]
fn names_that_differ_in_case_are_two_plugins() {
    let shelf = Shelf::with(
        |directory| {
            fs::write(directory.join("echo.wasm"), version(1)).unwrap();
            fs::write(directory.join("Echo.wasm"), version(2)).unwrap();
        },
        |settings| settings,
    );
    assert_ne!(
        shelf.get("echo").unwrap().digest,
        shelf.get("Echo").unwrap().digest
    );
}

#[test]
fn a_rescan_sees_what_no_notice_tells_of() {
    let elsewhere = TempDir::new().unwrap();
    let target = elsewhere.path().join("build.wasm");
    fs::write(&target, version(1)).unwrap();
    let shelf = Shelf::with(
        |directory| symlink(&target, directory.join("echo.wasm")).unwrap(),
        |settings| RegistrySettings {
            rescan: Duration::from_millis(20),
            ..settings
        },
    )
    .settled();
    // Nothing happens in the directory itself.
    fs::write(&target, version(2)).unwrap();
    shelf.expect_replaced("echo");
}

#[tokio::test]
async fn a_stopped_watch_leaves_what_serves() {
    let directory = TempDir::new().unwrap();
    let (registry, events) = open(settings(directory.path())).unwrap();
    let watch = registry.watch().unwrap();
    assert!(registry.watch().is_err(), "two would tell everything twice");
    watch.stop().await;
    let before = events.try_iter().count();
    assert_eq!(before, 1);
    assert!(registry.get(&name("dots")).is_some());
}

#[test]
fn a_change_between_opening_and_watching_is_seen() {
    let directory = TempDir::new().unwrap();
    let (registry, events) = open(settings(directory.path())).unwrap();
    fs::write(directory.path().join("echo.wasm"), version(1)).unwrap();
    let shelf = Shelf::follow(directory, registry, events);
    shelf.expect_added("dots");
    shelf.expect_added("echo");
}
