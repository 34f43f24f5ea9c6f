;; Has a function whose name would clear the screen.
;; expect: trapped
;; says: unreachable
(memory (export "memory") 1)
(func $evil (@name "\1b[2J\0d\0aok\00") unreachable)
(func (export "handle") (type $handle) (call $evil) (i32.const 256))
