;; Has five memories.
;; expect: refused
;; says: more than one run may have
(memory (export "memory") 1) (memory 1) (memory 1) (memory 1) (memory 1)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
