;; Divides the smallest number by minus one.
;; expect: trapped
;; says: overflow
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.div_s (i32.const -2147483648) (i32.const -1)))
