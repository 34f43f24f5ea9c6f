;; Opens a file above the folder that it was given.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "read" }
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "../secret")
  (func (export "_start")
    ;; Opened: it has escaped.
    (if (i32.eqz (call $path_open (i32.const 3) (i32.const 1) (i32.const 0) (i32.const 9)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 512)))
      (then unreachable))))
