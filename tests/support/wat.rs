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
