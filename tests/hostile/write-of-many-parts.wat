;; Writes a thousand times the same 64 KiB in one call.
;; expect: output-limit
;; limits: cpu = "100ms"
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (local $at i32)
    (loop
      (i32.store (local.get $at) (i32.const 16384))
      (i32.store offset=4 (local.get $at) (i32.const 65536))
      (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 8000))))
    (loop
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1000) (i32.const 9000)))
      (br 0))))
