# What every page's shell begins with: it stops at the first failure and says where on the page it was.
set -Eeuo pipefail
trap 'status=$?; echo "stopped at line $LINENO with status $status"; exit $status' ERR
trap stop_serving EXIT

# A server in the foreground would never let the page go on: it runs behind it until the next one.
serving() {
    stop_serving
    set -m
    "$@" >"$DOCUMENT/server.log" 2>&1 </dev/null &
    set +m
    echo $! >"$DOCUMENT/server.pid"
    for _ in $(seq 5000); do
        if curl --disable --silent --fail --output /dev/null "http://127.0.0.1:$DUNNO_PORT/readyz"; then return; fi
        kill -0 "$(cat "$DOCUMENT/server.pid")" 2>/dev/null || break
        sleep 0.1
    done
    cat "$DOCUMENT/server.log"
    echo "the server is not ready: $*"
    exit 1
}

stop_serving() {
    [ -e "$DOCUMENT/server.pid" ] || return 0
    kill -TERM -- "-$(cat "$DOCUMENT/server.pid")" 2>/dev/null || true
    wait "$(cat "$DOCUMENT/server.pid")" 2>/dev/null || true
    rm "$DOCUMENT/server.pid"
}
