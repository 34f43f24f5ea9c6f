;; Declares that its memory may grow to four gigabytes, and does not.
;; expect: done
(memory (export "memory") 1 65536)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
