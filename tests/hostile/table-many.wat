;; Has a hundred tables.
;; expect: refused
;; says: 100 tables, and 16 is the most for any plugin; build it with fewer
(memory (export "memory") 1)
(;repeat 100;)(table 1 funcref)(;end;)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
