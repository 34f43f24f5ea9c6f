;; Looks for anything in its environment that is not the task.
;; expect: done
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  ;; "SCUT", as a number: what each of its variables begins with.
  (func (export "_start")
    (local $left i32) (local $at i32)
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $environ_get (i32.const 16) (i32.const 4096)))
    (local.set $left (i32.load (i32.const 0)))
    (local.set $at (i32.const 16))
    (loop
      (if (i32.ne (i32.load (i32.load (local.get $at))) (i32.const 0x54554353)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 1)) (then unreachable))))
