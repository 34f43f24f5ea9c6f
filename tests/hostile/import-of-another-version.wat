;; Imports the log of another version of the contract.
;; expect: refused
;; says: version 0.2.0 of the contract
(component
  (import "scutwork:task/log@0.2.0" (instance (export "shout" (func))))
  (core module $main (;core;) (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (type $handle) (i32.const 256)))
  (core instance $core (instantiate $main))
  (;handler;))
