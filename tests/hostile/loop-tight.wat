;; Computes for ever.
;; expect: cpu-limit
;; limits: cpu = "100ms"
;; says: raise limits.cpu in loop-tight.toml
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (loop (br 0)) unreachable)
