;; Returns an output of 32 MiB, which the host would have to copy.
;; expect: output-limit
;; says: output limit 1MiB reached
(memory (export "memory") 512)
(func $handle (export "handle") (type $handle)
  (i32.store (i32.const 276) (i32.const 33554000))
  (i32.const 256))
