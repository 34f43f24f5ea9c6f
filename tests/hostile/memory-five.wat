;; Has five memories.
;; expect: refused
;; says: more than one run may have: 5 memories, and 4 is the most for any plugin; build it with fewer
(memory (export "memory") 1) (memory 1) (memory 1) (memory 1) (memory 1)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
