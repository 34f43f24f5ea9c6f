;; Looks where secrets usually lie.
;; expect: done
;; manifest: [files]
;; manifest: "/data" = { path = "{folder}", access = "read" }
;; says: denied
;; payload: read /etc/shadow
;; payload: read /proc/self/environ
;; payload: read /proc/1/root/etc/passwd
;; payload: read /run/secrets/key
;; payload: read /data/../secret
;; payload: read /data/link-to-secret
;; payload: read /data/link-to-parent/secret
;; payload: read data/../../secret
;; plugin: nosy
