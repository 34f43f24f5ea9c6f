;; Puts the granted name where it does not count.
;; expect: done
;; manifest: [http]
;; manifest: allow = ["http://example.com"]
;; logs: refused: it is not granted
;; says: denied
;; payload: get http://example.com@localhost/
;; payload: get http://localhost/http://example.com
;; payload: get http://localhost#example.com
;; payload: get http://example.com.localhost/
;; payload: get http://example.com:81/
;; payload: get https://example.com/
;; payload: get http://localhost\@example.com/
;; plugin: nosy
