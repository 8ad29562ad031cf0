# redis-server and redis-cli over TCP on the loopback.
# needs: redis-server redis-cli
set -e
redis-server --port 7391 --bind 127.0.0.1 ::1 --save '' --dir "$PWD" --daemonize no >log 2>&1 & pid=$!
cli() { redis-cli -p 7391 "$@"; }
for i in $(seq 100); do cli ping >/dev/null 2>&1 && break; sleep 0.1; done; cli ping
cli set k v; cli get k; redis-cli -h ::1 -p 7391 get k; for i in 1 2 3; do cli incr n; done
seq 1 3000 | sed 's/.*/SET key& value&/' | cli --pipe | tail -1; cli dbsize
cli client list | grep -c 'addr=127.0.0.1:'; cli shutdown nosave || true; wait $pid; echo "status $?"; rm -f log
