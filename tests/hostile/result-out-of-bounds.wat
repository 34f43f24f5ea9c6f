;; Returns a place outside its memory.
;; expect: trapped
(memory (export "memory") 1)
(func $handle (export "handle") (type $handle)
  (i32.const -4))
