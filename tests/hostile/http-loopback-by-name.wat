;; Asks the host itself by the name that is granted, and that is not public.
;; expect: done
;; manifest: [http]
;; manifest: allow = ["http://localhost"]
;; logs: is not a public address
;; says: denied
;; payload: get http://localhost/
;; plugin: nosy
