;; Was made by Emscripten.
;; expect: refused
;; says: Emscripten
(module (import "env" "emscripten_resize_heap" (func (param i32) (result i32))))
