;; Imports what no host has.
;; expect: refused
;; says: acme:secret/door@1.0.0
(component
  (import "acme:secret/door@1.0.0" (instance (export "open" (func))))
  (core module $main (;core;) (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
