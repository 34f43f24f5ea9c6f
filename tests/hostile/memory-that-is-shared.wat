;; Wants threads.
;; expect: refused
;; says: off
(memory (export "memory") 1 2 shared)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
