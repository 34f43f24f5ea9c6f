;; Takes memory until there is none.
;; expect: memory-limit
;; says: memory limit 64MiB reached in plugin `memory-bomb`
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
