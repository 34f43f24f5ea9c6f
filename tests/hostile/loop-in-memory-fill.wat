;; Fills 32 MiB for ever: one instruction that takes milliseconds.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(memory (export "memory") 512)
(func (export "handle") (type $handle)
  (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 33554432)) (br 0))
  unreachable)
