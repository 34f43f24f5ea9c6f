;; Exits as its module starts, before its `_start`.
;; expect: trapped
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32) ))
  (memory (export "memory") 2)
  (func $leave (call $proc_exit (i32.const 0)))
  (start $leave)
  (func (export "_start")))
