;; Calls a function by the wrong type.
;; expect: trapped
;; says: indirect call
(memory (export "memory") 1)
(table 1 funcref)
(elem (i32.const 0) $other)
(type $none (func))
(func $other (param i64))
(func (export "handle") (type $handle) (call_indirect (type $none) (i32.const 0)) (i32.const 256))
