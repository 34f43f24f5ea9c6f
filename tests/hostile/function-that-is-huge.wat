;; Has one function of a hundred thousand instructions.
;; expect: done
(memory (export "memory") 1)
(func $huge (param i32) (result i32) (local.get 0)
  (;repeat 33000;)i32.const {n} i32.add (;end;))
(func (export "handle") (type $handle) (drop (call $huge (i32.const 1))) (i32.const 256))
