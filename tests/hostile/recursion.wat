;; Calls itself for ever.
;; expect: stack-limit
;; says: stack limit 512KiB reached in plugin `recursion`
;; says: deeper
(memory (export "memory") 1)
(func $deeper (param i64) (result i64)
  (i64.add (call $deeper (local.get 0)) (call $deeper (local.get 0))))
(func (export "handle") (type $handle)
  (drop (call $deeper (i64.const 1)))
  (i32.const 256))
