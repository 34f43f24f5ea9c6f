;; Renames a file of its own over a link that leads out, and out by the link.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "write" }
(module
  (import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "mine")
  (data (i32.const 16) "link-to-parent/taken")
  (func (export "_start")
    (if (i32.eqz (call $path_rename (i32.const 3) (i32.const 0) (i32.const 4)
          (i32.const 3) (i32.const 16) (i32.const 20)))
      (then unreachable))))
