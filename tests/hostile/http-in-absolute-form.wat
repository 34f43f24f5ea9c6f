;; Asks the granted server for a whole URL, as one asks a proxy.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: ask http://localhost:{port} http://169.254.169.254/latest/meta-data/
;; payload: ask http://localhost:{port} https://example.com/
;; payload: ask http://localhost:{port} @169.254.169.254/
;; payload: ask http://localhost:{port} *
;; says: denied
;; never: reached
;; plugin: nosy
