;; Asks the granted server, which is there, by every name but its own.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: get http://127.0.0.1:{port}/
;; payload: get http://2130706433:{port}/
;; payload: get http://0x7f000001:{port}/
;; payload: get http://0x7f.1:{port}/
;; payload: get http://017700000001:{port}/
;; payload: get http://0177.0.0.1:{port}/
;; payload: get http://127.1:{port}/
;; payload: get http://0:{port}/
;; payload: get http://[::ffff:127.0.0.1]:{port}/
;; payload: get http://localhost.:{port}/
;; payload: get http://localhost@127.0.0.1:{port}/
;; payload: get https://localhost:{port}/
;; logs: refused: it is not granted
;; says: denied
;; never: reached
;; plugin: nosy
