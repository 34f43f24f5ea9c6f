;; Asks for a page, with no origin granted.
;; expect: done
;; logs: refused: it is not granted
;; says: denied
;; payload: get http://example.com/
;; plugin: nosy
