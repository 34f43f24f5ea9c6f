;; Asks the host itself by its address, in each of the ways to write it.
;; expect: done
;; manifest: [http]
;; manifest: allow = ["http://example.com"]
;; logs: refused: it is not granted
;; says: denied
;; payload: get http://127.0.0.1/
;; payload: get http://2130706433/
;; payload: get http://0x7f000001/
;; payload: get http://017700000001/
;; payload: get http://127.1/
;; payload: get http://0.0.0.0/
;; payload: get http://[::1]/
;; payload: get http://[::ffff:127.0.0.1]/
;; payload: get http://[::ffff:7f00:1]/
;; payload: get http://[64:ff9b::7f00:1]/
;; plugin: nosy
