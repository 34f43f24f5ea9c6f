;; Fills 256 MiB in one instruction, which nothing can interrupt.
;; expect: cpu-limit
;; limits: cpu = "100ms"
;; limits: memory = "256MiB"
(memory (export "memory") 4096)
(func (export "handle") (type $handle)
  (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 268435456)) (br 0))
  unreachable)
