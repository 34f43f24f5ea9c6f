;; Declares a memory of four gigabytes in a file of a kilobyte.
;; expect: refused
;; says: a memory of 4GiB at its start, and 1GiB is the most on this worker; raise limits.memory in scutwork.toml
(memory (export "memory") 65536)

(func $handle (export "handle") (type $handle)
  (i32.const 256))
