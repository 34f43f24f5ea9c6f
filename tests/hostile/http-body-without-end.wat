;; Asks a server that answers with a body for ever.
;; expect: http-body-limit
;; limits: http_body = "1MiB"
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: get http://localhost:{port}/body
;; says: raise limits.http_body in http-body-without-end.toml
;; plugin: nosy
