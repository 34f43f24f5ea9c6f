;; Gives up before anybody has called it.
;; expect: trapped
;; says: early
(memory (export "memory") 1)
(func $early unreachable)
(start $early)
(func (export "handle") (type $handle) (i32.const 256))
