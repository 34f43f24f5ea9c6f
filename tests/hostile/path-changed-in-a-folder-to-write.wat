;; Changes a folder that it may write, which is allowed, and puts it back.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "write" }
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $create (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory" (func $remove (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times" (func $touch (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "read-me")
  (data (i32.const 16) "made")
  (data (i32.const 32) "empty")
  (func $denied (param $result i32) (if (i32.eqz (local.get $result)) (then unreachable)))
  (func $allowed (param $result i32) (if (local.get $result) (then unreachable)))
  (func (export "_start")
    (call $allowed (call $create (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $allowed (call $remove (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $allowed (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4)
      (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
    (call $allowed (call $rename (i32.const 3) (i32.const 16) (i32.const 4) (i32.const 3) (i32.const 17) (i32.const 3)))
    (call $allowed (call $unlink (i32.const 3) (i32.const 17) (i32.const 3)))))
