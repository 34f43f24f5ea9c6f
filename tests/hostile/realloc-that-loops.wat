;; Computes for ever while the host hands over the task.
;; expect: cpu-limit
;; limits: cpu = "100ms"
;; payload: hello
(component
  (core module $main
    (;core;)
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (loop (br 0)) unreachable)
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
