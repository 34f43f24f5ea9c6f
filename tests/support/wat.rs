//! Plugins written by hand, for what no toolchain would build.

/// A component that exports the handler, made of one core module of these fields. The module
/// exports `handle`, of type `$handle`; memory at 256 is zero, where a returned pointer reads as
/// "ok, no output".
pub(crate) fn plugin(module_fields: &str) -> Vec<u8> {
    assembled("scutwork:task/handler@0.1.0", module_fields)
}

/// The same under another name for the handler.
pub(crate) fn assembled(handler: &str, module_fields: &str) -> Vec<u8> {
    let text = TEMPLATE
        .replace("HANDLER", handler)
        .replace("MODULE_FIELDS", module_fields);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A whole component, in which `(;core;)` declares what the handler's module needs, and `(;handler;)`
/// makes the instance `$core` the plugin's handler.
pub(crate) fn whole(text: &str) -> Vec<u8> {
    let (types, handler) = parts();
    let text = text
        .replace("(;core;)", types)
        .replace("(;handler;)", &handler);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The template in two: what the module with the handler declares, and what makes the instance `$core`
/// the handler.
fn parts() -> (&'static str, String) {
    let (module, rest) = TEMPLATE
        .split_once("(core instance $core (instantiate $module))")
        .unwrap();
    let from = module.find("(type $handle").unwrap();
    let to = module.find("(func (export \"realloc\")").unwrap();
    let handler = rest.trim_end().strip_suffix(')').unwrap();
    (
        &module[from..to],
        handler.replace("HANDLER", "scutwork:task/handler@0.1.0"),
    )
}

const TEMPLATE: &str = r#"
(component $hand-made
  (core module $module
    (type $handle (func
      (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    MODULE_FIELDS
  )
  (core instance $core (instantiate $module))
  (type $text (option string))
  (type $bytes (list u8))
  (type $header (tuple string string))
  (type $headers (list $header))
  (type $delay (option u32))
  (type $task (record
    (field "id" string) (field "plugin" string) (field "payload" $bytes)
    (field "content-type" $text) (field "headers" $headers)
    (field "attempt" u32) (field "max-attempts" u32) (field "timeout-ms" u32)))
  (type $output (record (field "content-type" $text) (field "body" $bytes)))
  (type $retry (record (field "code" string) (field "message" string) (field "delay" $delay)))
  (type $reject (record (field "code" string) (field "message" string)))
  (type $failure (variant (case "retry" $retry) (case "reject" $reject)))
  (func $handle (param "task" $task) (result (result $output (error $failure)))
    (canon lift (core func $core "handle")
      (memory (core memory $core "memory")) (realloc (core func $core "realloc"))))

  ;; Types of an exported function have to be exported beside it, under their names.
  (component $named
    (import "task-in" (type $task-in (eq $task)))
    (import "output-in" (type $output-in (eq $output)))
    (import "retry-in" (type $retry-in (eq $retry)))
    (import "reject-in" (type $reject-in (eq $reject)))
    (type $failure-in-shape (variant (case "retry" $retry-in) (case "reject" $reject-in)))
    (import "failure-in" (type $failure-in (eq $failure-in-shape)))
    (import "handle-in" (func $handle-in
      (param "task" $task-in) (result (result $output-in (error $failure-in)))))
    (export $task-out "task" (type $task-in))
    (export $output-out "output" (type $output-in))
    (export $retry-out "retry-reason" (type $retry-in))
    (export $reject-out "reject-reason" (type $reject-in))
    (type $failure-out-shape (variant (case "retry" $retry-out) (case "reject" $reject-out)))
    (export $failure-out "failure" (type $failure-in) (type (eq $failure-out-shape)))
    (export "handle" (func $handle-in)
      (func (param "task" $task-out) (result (result $output-out (error $failure-out))))))
  (instance $handler (instantiate $named
    (with "task-in" (type $task))
    (with "output-in" (type $output))
    (with "retry-in" (type $retry))
    (with "reject-in" (type $reject))
    (with "failure-in" (type $failure))
    (with "handle-in" (func $handle))))
  (export "HANDLER" (instance $handler)))
"#;

/// A component that is a plugin but for one import, which no host has.
pub(crate) fn stranger() -> Vec<u8> {
    let text = TEMPLATE
        .replacen(
            "(component $hand-made",
            r#"(component $hand-made
  (import "acme:secret/door@1.0.0" (instance (export "open" (func))))"#,
            1,
        )
        .replace("HANDLER", "scutwork:task/handler@0.1.0")
        .replace(
            "MODULE_FIELDS",
            r#"(memory (export "memory") 1)
    (func (export "handle") (type $handle) (i32.const 256))"#,
        );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A core module that is a WASI command: `_start` does `body`, with what it needs of preview 1 and a
/// few functions around it. Memory from 4096 on is free for it.
pub(crate) fn command(body: &str) -> Vec<u8> {
    let text = COMMAND.replace("BODY", body);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const COMMAND: &str = r#"
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get"
    (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)

  ;; Reads up to so many bytes of stdin into memory at 4096, and returns how many came.
  (func $read (param $most i32) (result i32)
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (local.get $most))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
      (then unreachable))
    (i32.load (i32.const 8)))

  ;; Writes bytes to stdout or stderr, all of them.
  (func $write (param $to i32) (param $from i32) (param $size i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $from))
      (i32.store (i32.const 4) (local.get $size))
      (if (call $fd_write (local.get $to) (i32.const 0) (i32.const 1) (i32.const 8))
        (then unreachable))
      (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
      (local.set $size (i32.sub (local.get $size) (i32.load (i32.const 8))))
      (br_if $more (local.get $size))))

  ;; All of stdin to stdout or stderr.
  (func $copy (param $to i32)
    (local $size i32)
    (loop $more
      (local.set $size (call $read (i32.const 65536)))
      (if (local.get $size)
        (then
          (call $write (local.get $to) (i32.const 4096) (local.get $size))
          (br $more)))))

  (func (export "_start") BODY))
"#;

/// A component that exports `run` under this name and returns ok or an error.
pub(crate) fn run_component(export: &str, is_ok: bool) -> Vec<u8> {
    let text = format!(
        r#"
        (component
          (core module $module (func (export "run") (result i32) (i32.const {})))
          (core instance $core (instantiate $module))
          (func $run (result (result)) (canon lift (core func $core "run")))
          (instance $exported (export "run" (func $run)))
          (export "{export}" (instance $exported)))
        "#,
        i32::from(!is_ok)
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A plugin that gives the host its payload's bytes as the answer's own memory, so that every pointer,
/// length and tag in it is the payload's.
pub(crate) fn mirror() -> Vec<u8> {
    whole(MIRROR)
}

const MIRROR: &str = r#"
(component
  (core module $main
    (;core;)
    (memory (export "memory") 16)
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $free)
      (global.set $free
        (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 16)) (i32.const -16))))
    (func (export "handle") (type $handle) (local.get 4)))
  (core instance $core (instantiate $main))
  (;handler;))"#;
