;; Makes a link out of its folder, by an absolute and by a relative path, and follows it.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "write" }
(module
  (import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "../secret")
  (data (i32.const 16) "way-out")
  (func (export "_start")
    (drop (call $path_symlink (i32.const 0) (i32.const 9) (i32.const 3) (i32.const 16) (i32.const 7)))
    (if (i32.eqz (call $path_open (i32.const 3) (i32.const 1) (i32.const 16) (i32.const 7)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 512)))
      (then unreachable))))
