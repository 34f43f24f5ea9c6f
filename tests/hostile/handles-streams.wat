;; Asks for its stdout for ever and keeps them all.
;; expect: handle-limit
(component
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type (sub resource)))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $outer))
    (export "output-stream" (type $stream (eq $outer)))
    (export "get-stdout" (func (result (own $stream))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "get" (func $get (result i32)))
    (func (export "handle") (type $handle)
      (loop (drop (call $get)) (br 0))
      unreachable)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "get" (func $get))))))
  (;handler;))
