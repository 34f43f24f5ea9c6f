;; Grows a table until it may not, and gives up.
;; expect: table-limit
;; says: table limit 65536 elements reached in plugin `table-that-grows-too-far`; it is the same for all plugins
(memory (export "memory") 1)
(table $table 0 funcref)
(func (export "handle") (type $handle)
  (loop (br_if 0 (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
  unreachable)
