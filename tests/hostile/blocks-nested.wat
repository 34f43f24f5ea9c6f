;; Nests ten thousand blocks in a function.
;; expect: done
(memory (export "memory") 1)
(func $nest (;repeat 10000;)block (;end;) (;repeat 10000;)end (;end;))
(func (export "handle") (type $handle) (call $nest) (i32.const 256))
