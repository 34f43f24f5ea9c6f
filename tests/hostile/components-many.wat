;; Has five thousand components in one.
;; expect: refused
(component (;repeat 5000;)(component)(;end;))
