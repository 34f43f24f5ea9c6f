;; Calls itself with ten thousand locals in each call.
;; expect: stack-limit
(memory (export "memory") 1)
(func $deeper (local (;repeat 10000;)i64 (;end;))
  (local.set 9999 (i64.load (i32.const 0)))
  (call $deeper)
  (i64.store (i32.const 0) (local.get 9999)))
(func (export "handle") (type $handle) (call $deeper) (i32.const 256))
