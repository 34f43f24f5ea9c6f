;; Calls for ever, in functions that are too small to have a loop.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(memory (export "memory") 1)
(table 1 funcref)
(elem (i32.const 0) $nothing)
(type $none (func))
(func $nothing)
(func (export "handle") (type $handle)
  (loop (call_indirect (type $none) (i32.const 0)) (br 0))
  unreachable)
