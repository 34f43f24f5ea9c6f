;; Was made by wasm-bindgen.
;; expect: refused
;; says: wasm-bindgen
(module (import "__wbindgen_placeholder__" "__wbindgen_throw" (func (param i32 i32))))
