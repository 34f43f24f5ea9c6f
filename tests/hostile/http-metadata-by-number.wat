;; Asks for the cloud's secrets, in each of the ways to write the address.
;; expect: done
;; manifest: [http]
;; manifest: allow = ["http://example.com"]
;; logs: refused: it is not granted
;; says: denied
;; payload: get http://169.254.169.254/latest/meta-data/
;; payload: get http://2852039166/latest/meta-data/
;; payload: get http://0xa9fea9fe/latest/meta-data/
;; payload: get http://169.254.43518/latest/meta-data/
;; payload: get http://[::ffff:169.254.169.254]/latest/meta-data/
;; payload: get http://[fd00:ec2::254]/latest/meta-data/
;; plugin: nosy
