;; Looks for open files among the first ten thousand numbers.
;; expect: done
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\10\00\00\00\10\00\00\00")
  (func (export "_start")
    (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop
      (if (i32.ne (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 8)) (then unreachable))
      (if (i32.ne (call $fd_prestat_get (local.get $fd) (i32.const 64)) (i32.const 8)) (then unreachable))
      (br_if 0 (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 10000))))))
