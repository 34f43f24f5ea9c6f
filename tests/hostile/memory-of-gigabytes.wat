;; Declares a memory of four gigabytes in a file of a kilobyte.
;; expect: refused
(memory (export "memory") 65536)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
