;; Computes for ever before anybody has called it.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(memory (export "memory") 1)
(func $spin (loop (br 0)))
(start $spin)
(func (export "handle") (type $handle) (i32.const 256))
