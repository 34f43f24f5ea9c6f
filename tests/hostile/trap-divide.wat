;; Divides by zero.
;; expect: trapped
;; says: divide by zero
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.div_s (i32.const 1) (i32.const 0)))
