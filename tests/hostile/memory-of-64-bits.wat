;; Wants a memory of 64 bits.
;; expect: refused
;; says: off
(memory (export "memory") i64 1)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
