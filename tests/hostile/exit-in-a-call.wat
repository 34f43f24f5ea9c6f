;; Exits with success in the middle of a call.
;; expect: trapped
;; says: exited in the middle of a call
(component
  (import "wasi:cli/exit@0.2.0" (instance $process
    (export "exit" (func (param "status" (result))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $exit (canon lower (func $process "exit")))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "exit" (func $exit (param i32)))
    (func (export "handle") (type $handle)
      (call $exit (i32.const 0))
      (i32.const 256))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "exit" (func $exit))))))
  (;handler;))
