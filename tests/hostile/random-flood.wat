;; Asks for random numbers for ever.
;; expect: random-limit
;; limits: random = "64KiB"
;; says: random byte limit 64KiB reached in plugin `random-flood`; raise limits.random in random-flood.toml
(component
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
    (export "get-random-u64" (func (result u64)))))
  (import "wasi:random/insecure@0.2.0" (instance $insecure
    (export "get-insecure-random-u64" (func (result u64)))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $bytes (canon lower (func $random "get-random-bytes")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $number (canon lower (func $random "get-random-u64")))
  (core func $insecure (canon lower (func $insecure "get-insecure-random-u64")))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "bytes" (func $bytes (param i64 i32)))
    (import "host" "number" (func $number (result i64)))
    (import "host" "insecure" (func $insecure (result i64)))
    (func (export "handle") (type $handle)
      (loop (drop (call $number)) (br 0))
      unreachable)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "bytes" (func $bytes)) (export "number" (func $number))
      (export "insecure" (func $insecure))))))
  (;handler;))
