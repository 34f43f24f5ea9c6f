;; Follows a redirect of the granted server's to where clouds keep metadata.
;; expect: done
;; manifest: [http]
;; manifest: allow = [{ origin = "http://localhost:{port}", private = true }]
;; payload: follow http://localhost:{port}/to-metadata
;; logs: request to http://169.254.169.254 refused: it is not granted
;; says: 302 denied
;; never: reached
;; plugin: nosy
