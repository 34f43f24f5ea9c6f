;; Writes empty lines to stderr for ever.
;; expect: cpu-limit
;; limits: cpu = "100ms"
;; logs: log limit
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\10\00\00\00\00\f0\00\00")
  (func (export "_start")
    (memory.fill (i32.const 16) (i32.const 10) (i32.const 61440))
    (loop (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))))
