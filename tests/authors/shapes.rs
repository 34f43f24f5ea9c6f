//! `plugin build FILE`: a core module that any toolchain has left becomes a component.

use crate::support::program::Place;

/// A plugin's core module that writes to stderr by WASI's first preview, and gives an output of 2 bytes.
fn core() -> Vec<u8> {
    core_with(HANDLE)
}

const HANDLE: &str = "scutwork:task/handler@0.1.0#handle";

fn core_with(export: &str) -> Vec<u8> {
    let text = CORE.replace("EXPORT", export);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const CORE: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "scutwork:task/control@0.1.0" "progress" (func $progress (param i32 i32 i32 i32)))
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 4096))
  ;; Where the text for stderr lies and how long it is, and then the text.
  (data (i32.const 16) "\20\00\00\00\06\00\00\00")
  (data (i32.const 32) "hello\n")
  ;; The result: ok, no content type, and a body of two bytes.
  (data (i32.const 64) "\00\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00" "\60\00\00\00" "\02\00\00\00")
  (data (i32.const 96) "ok")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    ;; As far on as it is to be aligned.
    (global.set $free (i32.and
      (i32.sub (i32.add (global.get $free) (local.get 2)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get 2))))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))
  (func (export "EXPORT")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 8)))
    (call $progress (i32.const 1) (i32.const 2) (i32.const 32) (i32.const 5))
    (i32.const 64)))"#;

#[test]
fn a_core_module_of_any_toolchain_becomes_a_component_that_serves() {
    let place = Place::new();
    place.file("bare.wasm", core());
    place
        .run(&["plugin", "build", "bare.wasm", "--out", "plugins"])
        .exits(0);
    let ended = place.run(&["run", "bare", "any"]).exits(0);
    assert_eq!(ended.text(), "ok");
    ended.says(&["hello"]);
    let checked = place
        .run(&["plugin", "check", "plugins/bare.wasm"])
        .exits(0)
        .text();
    assert!(
        checked.contains("plugin for scutwork:task@0.1.0, a component"),
        "{checked}"
    );
    // The module itself is left as it was.
    assert_eq!(
        std::fs::read(place.path().join("bare.wasm")).unwrap(),
        core()
    );
}

#[test]
fn what_no_component_can_be_made_of_is_told_why_and_leaves_nothing() {
    let place = Place::new();
    let component = scutwork::plugin::embedded::echo();
    let misspelt = core_with("scutwork:task/handler@0.1.0#handel");
    let other = core_with("run");
    for (wasm, said) in [
        (component, &["is a component already"][..]),
        (
            &misspelt,
            &["no component can be made of it", "function `handle`"],
        ),
        (
            &other,
            &[
                "exports no `scutwork:task/handler@0.1.0#handle`",
                "wit/task.wit",
            ],
        ),
        (b"<html>", &["no WebAssembly"]),
    ] {
        place.file("bare.wasm", wasm);
        place
            .run(&["plugin", "build", "bare.wasm", "--out", "plugins"])
            .exits(1)
            .says(said);
        assert!(!place.path().join("plugins/bare.wasm").exists());
    }
}

#[test]
fn a_core_module_is_never_written_over() {
    let place = Place::new();
    place.file("bare.wasm", core());
    place
        .run(&["plugin", "build", "bare.wasm"])
        .exits(2)
        .says(&["--out DIR"]);
    place
        .run(&["plugin", "build", "bare.wasm", "--out", "."])
        .exits(2)
        .says(&["would be written over"]);
    assert_eq!(
        std::fs::read(place.path().join("bare.wasm")).unwrap(),
        core()
    );
}
