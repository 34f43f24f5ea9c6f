;; Has twenty thousand functions, all of them compiled for nothing.
;; expect: done
(memory (export "memory") 1)
(;repeat 20000;)(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {n})))
(;end;)
(func (export "handle") (type $handle) (i32.const 256))
