;; Gives the host a place for the task that lies outside its memory.
;; expect: trapped
;; says: beyond end of memory
;; payload: hello
(component
  (core module $main
    (;core;)
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const -16))
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
