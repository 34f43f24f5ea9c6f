;; Sleeps for five hundred years.
;; expect: timeout
;; limits: timeout = "200ms"
;; says: raise limits.timeout in sleep-for-ever.toml
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $pollable (eq $outer)))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $now (canon lower (func $clock "now")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "now" (func $now (result i64)))
    (func (export "handle") (type $handle)
      (call $block (call $subscribe (i64.const -1)))
      (i32.const 256))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block)) (export "now" (func $now))))))
  (;handler;))
