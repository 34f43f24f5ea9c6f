;; Declares a table of ten million elements.
;; expect: refused
;; says: more than one run may have
(memory (export "memory") 1)
(table 10000000 funcref)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
