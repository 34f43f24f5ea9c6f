;; Declares more memory to begin with than its limit is.
;; expect: memory-limit
(memory (export "memory") 2000)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
