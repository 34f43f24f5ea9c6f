;; Has four memories, each under the limit, and all together over it.
;; expect: memory-limit
(memory (export "memory") 1)
(memory $b 1) (memory $c 1) (memory $d 1)
(func $take (param $got i32) (if (i32.eq (local.get $got) (i32.const -1)) (then unreachable)))
(func (export "handle") (type $handle)
  (call $take (memory.grow (i32.const 300)))
  (call $take (memory.grow $b (i32.const 300)))
  (call $take (memory.grow $c (i32.const 300)))
  (call $take (memory.grow $d (i32.const 300)))
  (i32.const 256))
