;; Tries environment, files, sockets, names and the network as an ordinary program would.
;; expect: done
;; plugin: nosy
