;; Reads a file in a folder that it may read, which is allowed.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "read" }
;; says: for plugins
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "read-me")
  (func (export "_start")
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 512))
      (then unreachable))
    (i32.store (i32.const 600) (i32.const 1024))
    (i32.store (i32.const 604) (i32.const 100))
    (if (call $fd_read (i32.load (i32.const 512)) (i32.const 600) (i32.const 1) (i32.const 608)) (then unreachable))
    (i32.store (i32.const 604) (i32.load (i32.const 608)))
    (if (call $fd_write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 612)) (then unreachable))))
