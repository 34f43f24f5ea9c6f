;; Gives up.
;; expect: trapped
;; says: unreachable
;; says: give_up
;; says: used: wall
(memory (export "memory") 1)
(func $give_up unreachable)
(func $handle (export "handle") (type $handle) (call $give_up) (i32.const 256))
