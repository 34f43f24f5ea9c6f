;; Logs a hundred thousand lines and returns: they are cut, and it is not killed.
;; expect: done
;; limits: log_lines = 10
;; logs: log limit 10 lines reached, the rest is dropped; raise limits.log_lines in log-flood.toml
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
      (local $left i32)
      (local.set $left (i32.const 100000))
      (loop
        (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0))
        (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (i32.const 256))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "write" (func $write))))))
  (;handler;))
