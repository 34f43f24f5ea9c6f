;; Changes a folder that it may only read, in each of the ways that there are.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "read" }
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
    ;; To write it; to make it empty; to make it anew.
    (call $denied (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7)
      (i32.const 0) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
    (call $denied (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7)
      (i32.const 8) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 512)))
    (call $denied (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4)
      (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
    (call $denied (call $create (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $denied (call $remove (i32.const 3) (i32.const 32) (i32.const 5)))
    (call $denied (call $unlink (i32.const 3) (i32.const 0) (i32.const 7)))
    (call $denied (call $rename (i32.const 3) (i32.const 0) (i32.const 7) (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $denied (call $symlink (i32.const 0) (i32.const 7) (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $denied (call $link (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 3) (i32.const 16) (i32.const 4)))
    (call $denied (call $touch (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7) (i64.const 0) (i64.const 0) (i32.const 5)))))
