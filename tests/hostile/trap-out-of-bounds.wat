;; Reads beyond its memory, as far as an address can go.
;; expect: trapped
;; says: out of bounds
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.load offset=4294967295 (i32.const -1)))
