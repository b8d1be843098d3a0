# To be sourced: a node on a socket of its own. `start_node PROGRAM` sets $folder and $socket; both go when the script
# ends.

folder=$(mktemp -d)
socket=$folder/socket
node=

end_node() {
    [ -z "$node" ] || { kill "$node" && wait "$node" || true; } 2>/dev/null
    rm -rf "$folder"
}
trap end_node EXIT

start_node() {
    ELCACHE__NETWORK__BIND_ADDRESS=127.0.0.1 ELCACHE__NETWORK__HTTP_PORT=0 \
        "$1" -m 64 -D 0 -d "$folder/disk" -u "$socket" 2> "$folder/log" &
    node=$!
    for _ in $(seq 300); do
        [ -S "$socket" ] && return
        sleep 0.1
    done
    cat "$folder/log" >&2
    echo "the node does not listen on $socket" >&2
    exit 1
}
