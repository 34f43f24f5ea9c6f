;; Takes all memory that it may have, writes to each page of it, and returns.
;; expect: done
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (local $at i32)
  (drop (memory.grow (i32.const 1000)))
  (loop
    (i32.store (local.get $at) (i32.const 1))
    (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (i32.const 65000000))))
  (memory.fill (i32.const 256) (i32.const 0) (i32.const 64))
  (i32.const 256))
