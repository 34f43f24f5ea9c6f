;; Asks again and again.
;; expect: http-request-limit
;; limits: http_requests = 3
;; manifest: [http]
;; manifest: allow = ["http://localhost:9"]
;; says: http request limit 3 reached in plugin `http-flood`; raise limits.http_requests in http-flood.toml
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; payload: get http://localhost:9/
;; plugin: nosy
