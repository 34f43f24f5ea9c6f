;; Follows redirects of the granted server's to the same one by its number, and by a number in one piece.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: follow http://localhost:{port}/to-number
;; payload: follow http://localhost:{port}/to-decimal
;; logs: request to http://127.0.0.1:{port} refused: it is not granted
;; says: 302 denied
;; never: reached
;; plugin: nosy
