;; Grows a table until there is no memory for it.
;; expect: memory-limit
;; limits: memory = "256KiB"
(memory (export "memory") 1)
(table $table 0 funcref)
(func (export "handle") (type $handle)
  (loop (br_if 0 (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
  unreachable)
