;; Has a thousand memories of no pages.
;; expect: refused
(memory (export "memory") 1)
(;repeat 1000;)(memory 0)(;end;)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
