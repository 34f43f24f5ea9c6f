;; Waits for thirty thousand things at once.
;; expect: handle-limit
;; limits: cpu = "100ms"
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "_start")
    (drop (call $poll_oneoff (i32.const 0) (i32.const 2000000) (i32.const 30000) (i32.const 3900000)))
    (loop (br 0))))
