;; Has data that lies outside its memory.
;; expect: trapped
;; says: out of bounds
(memory (export "memory") 1)
(data (i32.const 65535) "ab")

(func $handle (export "handle") (type $handle)
  (i32.const 256))
