#!/bin/sh
# Runs the command, built for this machine, as the host does: exit code and output for a payload.
set -eu

expect() { # CODE OUTPUT PAYLOAD
    code=0
    output=$(printf "$3" | ./main) || code=$?
    if [ "$code $output" != "$1 $2" ]; then
        echo "\"$3\" gave $code and $output, not $1 and $2" >&2
        exit 1
    fi
}

# A text is counted, nothing is rejected, and a busy service is tried again.
expect 0 '{"lines":2,"words":3,"bytes":13}' 'one two\nthree'
expect 65 '' ''
expect 75 '' busy
export SCUTWORK_ATTEMPT=3
expect 0 '{"lines":1,"words":1,"bytes":4}' busy
