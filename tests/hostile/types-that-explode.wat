;; Has a type of sixteen times a type of sixteen times a type, and so on.
;; expect: refused
(component
  (type $t0 (tuple u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64 u64))
  (type $t1 (tuple $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0 $t0))
  (type $t2 (tuple $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1 $t1))
  (type $t3 (tuple $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2 $t2))
  (type $t4 (tuple $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3 $t3))
  (type $t5 (tuple $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4 $t4))
  (import "f" (func (param "x" $t5))))
