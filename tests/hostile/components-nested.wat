;; Nests components ninety deep.
;; expect: refused
(component (;repeat 90;)(component (;end;) (;repeat 90;))(;end;))
