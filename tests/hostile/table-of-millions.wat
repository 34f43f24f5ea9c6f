;; Declares a table of ten million elements.
;; expect: refused
;; says: a table of 10000000 elements, and 65536 is the most for any plugin; let it begin smaller
(memory (export "memory") 1)
(table 10000000 funcref)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
