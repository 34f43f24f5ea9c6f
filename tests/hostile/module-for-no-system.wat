;; Was built for wasm32-unknown-unknown.
;; expect: refused
;; says: no system at all
(module (memory (export "memory") 1) (func (export "run")))
