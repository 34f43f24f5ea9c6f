;; Returns an output of two gigabytes in a memory of 64 KiB.
;; expect: trapped
;; says: out of bounds
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.store (i32.const 276) (i32.const 0x7fffffff))
  (i32.const 256))
