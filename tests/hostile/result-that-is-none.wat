;; Returns neither ok nor an error.
;; expect: trapped
;; says: discriminant
(memory (export "memory") 1)
(data (i32.const 256) "\07")
(func $handle (export "handle") (type $handle)
  (i32.const 256))
