;; Returns an output over its limit.
;; expect: output-limit
;; limits: output = "4KiB"
;; says: output limit 4KiB reached
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.store (i32.const 276) (i32.const 5000))
  (i32.const 256))
