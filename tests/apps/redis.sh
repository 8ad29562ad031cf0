# redis-server and redis-cli over a Unix socket.
# needs: redis-server redis-cli
set -e
redis-server --port 0 --unixsocket "$PWD/s" --save '' --dir "$PWD" --daemonize no >log 2>&1 & pid=$!
cli() { redis-cli -s "$PWD/s" "$@"; }
for i in $(seq 100); do [ -S s ] && cli ping >/dev/null 2>&1 && break; sleep 0.1; done; cli ping
cli set k v; cli get k; for i in 1 2 3; do cli incr n; done; cli rpush l a b c; cli lrange l 0 -1; cli hset h f 1 g 2; cli eval 'return redis.call("get", KEYS[1])' 1 k
seq 1 2000 | sed 's/.*/SET key& value&/' | cli --pipe | tail -1; cli dbsize; cli save; ls dump.rdb; cli expire k 1; sleep 1.2; cli exists k; cli bgsave >/dev/null; sleep 0.5; cli shutdown nosave || true; wait $pid; echo "status $?"
