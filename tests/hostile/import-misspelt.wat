;; Imports an interface by a name that is nearly right.
;; expect: refused
;; says: is `wasi:random/random` meant?
(component
  (import "wasi:random/randon@0.2.0" (instance (export "get-random-u64" (func (result u64)))))
  (core module $main (;core;) (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
