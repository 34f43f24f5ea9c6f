;; Has a hundred tables.
;; expect: refused
;; says: more than one run may have
(memory (export "memory") 1)
(;repeat 100;)(table 1 funcref)(;end;)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
