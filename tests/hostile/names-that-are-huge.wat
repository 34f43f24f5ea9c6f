;; Has a function whose name has a hundred kilobytes, thirty times in the backtrace.
;; expect: stack-limit
(memory (export "memory") 1)
(func $long (@name "(;repeat 100000;)n(;end;)") (call $long) (call $long))
(func (export "handle") (type $handle) (call $long) (i32.const 256))
