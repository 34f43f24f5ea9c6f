;; Makes forty instances of its module.
;; expect: refused
;; says: instances of its modules, and 16 is the most for any plugin; build it of fewer
(component
  (core module $main (;core;) (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (type $handle) (i32.const 256)))
  (;repeat 40;)(core instance (instantiate $main)) (;end;)
  (core instance $core (instantiate $main))
  (;handler;))
