;; Imports by a name of a hundred kilobytes with control characters.
;; expect: refused
(module (import "env" "\1b[2J(;repeat 100000;)n(;end;)" (func)) (func (export "_start")))
