;; Asks a server that answers with headers for ever.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: get http://localhost:{port}/headers
;; says: denied
;; plugin: nosy
