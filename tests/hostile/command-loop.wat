;; Computes for ever, as a command.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(module

  (memory (export "memory") 2)
  (func (export "_start") (loop (br 0))))
