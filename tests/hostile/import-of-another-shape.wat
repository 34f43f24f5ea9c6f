;; Imports the clock as a function that it is not.
;; expect: refused
;; says: wasi:clocks/monotonic-clock
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (param "zone" string) (result s8)))))
  (core module $main (;core;) (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
