;; Calls itself for ever before anybody has called it.
;; expect: stack-limit
(memory (export "memory") 1)
(func $deeper (call $deeper) (call $deeper))
(start $deeper)
(func (export "handle") (type $handle) (i32.const 256))
