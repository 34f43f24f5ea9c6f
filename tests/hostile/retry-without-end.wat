;; Asks to be run again in fifty days, each time.
;; expect: plugin-error
(memory (export "memory") 1)
(data (i32.const 256) "\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\01\00\00\00\ff\ff\ff\ff")
(func $handle (export "handle") (type $handle)
  (i32.const 256))
