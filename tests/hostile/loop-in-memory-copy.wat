;; Copies 16 MiB to and fro for ever.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(memory (export "memory") 512)
(func (export "handle") (type $handle)
  (loop
    (memory.copy (i32.const 0) (i32.const 16777216) (i32.const 16777216))
    (memory.copy (i32.const 16777216) (i32.const 0) (i32.const 16777216))
    (br 0))
  unreachable)
