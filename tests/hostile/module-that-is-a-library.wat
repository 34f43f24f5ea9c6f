;; Is a reactor, with nothing to start.
;; expect: refused
;; says: reactor
(module (func (export "_initialize")))
