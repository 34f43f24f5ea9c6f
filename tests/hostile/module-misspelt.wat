;; Imports a WASI function by a name that is nearly right.
;; expect: refused
;; says: is `fd_write` meant?
(module (import "wasi_snapshot_preview1" "fd_wirte" (func)) (func (export "_start")))
