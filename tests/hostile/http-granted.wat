;; Asks the granted server by its name, which is allowed.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: get http://localhost:{port}/
;; says: 200 reached
;; plugin: nosy
