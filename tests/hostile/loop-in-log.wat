;; Logs for ever. What is too much is dropped, and that does not save it.
;; expect: cpu-limit
;; limits: cpu = "100ms"
;; logs: log limit 256KiB reached, the rest is dropped; raise limits.log_bytes in loop-in-log.toml
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
    (func (export "handle") (type $handle)
      (loop (call $write (i32.const 4) (i32.const 0) (i32.const 4096) (i32.const 0) (i32.const 0)) (br 0))
      unreachable)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "write" (func $write))))))
  (;handler;))
