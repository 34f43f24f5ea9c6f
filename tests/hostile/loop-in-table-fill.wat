;; Fills a table for ever.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(memory (export "memory") 1)
(table $table 60000 funcref)
(func (export "handle") (type $handle)
  (loop (table.fill $table (i32.const 0) (ref.null func) (i32.const 60000)) (br 0))
  unreachable)
