;; Appends to one set of headers for ever: from some size on it is refused.
;; expect: cpu-limit
;; limits: cpu = "100ms"
(component
  (import "wasi:http/types@0.2.0" (instance $http
    (export "fields" (type $fields (sub resource)))
    (type $errors (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $error (eq $errors)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8))
      (result (result (error $error)))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $make (canon lower (func $http "[constructor]fields")))
  (core func $append (canon lower (func $http "[method]fields.append")
    (memory (core memory $libc "memory"))))
  (core module $main
    (;core;)
    (import "libc" "memory" (memory 1))
    (export "memory" (memory 0))
    (import "host" "make" (func $make (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (data (i32.const 0) "name")
    (func (export "handle") (type $handle)
      (local $headers i32)
      (local.set $headers (call $make))
      (loop
        (call $append (local.get $headers) (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 1000) (i32.const 512))
        (br 0))
      unreachable)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $core (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance (export "make" (func $make)) (export "append" (func $append))))))
  (;handler;))
