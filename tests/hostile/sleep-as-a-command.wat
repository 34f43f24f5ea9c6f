;; Sleeps for five hundred years, as a command.
;; expect: timeout
;; limits: timeout = "200ms"
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "\00\00\00\00\01\00\00\00\ff\ff\ff\ff\ff\ff\ff\0f")
  (func (export "_start")
    (drop (call $poll_oneoff (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))
    unreachable))
