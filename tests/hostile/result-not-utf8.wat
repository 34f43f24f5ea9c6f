;; Rejects with words that are no text.
;; expect: trapped
;; says: utf-8
(memory (export "memory") 1)
(data (i32.const 0) "\ff\ff\ff\ff")
(data (i32.const 256) "\01\00\00\00\01\00\00\00\00\00\00\00\04\00\00\00\00\00\00\00\04")
(func $handle (export "handle") (type $handle)
  (i32.const 256))
