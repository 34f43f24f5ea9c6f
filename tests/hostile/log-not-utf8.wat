;; Logs a message that is no text.
;; expect: trapped
;; says: utf-8
(component
  (import "scutwork:task/log@0.1.0" (instance $log
    (type $levels (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $levels)))
    (export "write" (func
      (param "level" $level) (param "message" string) (param "fields" (list (tuple string string)))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $write (canon lower (func $log "write") (memory (core memory $libc "memory"))))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "write" (func $write (param i32 i32 i32 i32 i32)))
    (data (i32.const 0) "\ff\fe\fd")
    (func (export "handle") (type $handle)
      (call $write (i32.const 2) (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 0))
      (i32.const 256))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "write" (func $write))))))
  (;handler;))
