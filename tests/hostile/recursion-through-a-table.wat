;; Calls itself for ever through a table.
;; expect: stack-limit
(memory (export "memory") 1)
(table 1 funcref)
(elem (i32.const 0) $deeper)
(type $none (func))
(func $deeper (call_indirect (type $none) (i32.const 0)) (call_indirect (type $none) (i32.const 0)))
(func (export "handle") (type $handle) (call $deeper) (i32.const 256))
