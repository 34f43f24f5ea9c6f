;; Rejects with a message of a megabyte, which is cut.
;; expect: rejected
(memory (export "memory") 20)
(func $handle (export "handle") (type $handle)
  (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1048576))
  (i32.store8 (i32.const 256) (i32.const 1))
  (i32.store8 (i32.const 260) (i32.const 1))
  (i32.store (i32.const 272) (i32.const 1024))
  (i32.store (i32.const 276) (i32.const 1048576))
  (i32.const 256))
