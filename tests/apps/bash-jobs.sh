# Background jobs: wait for one, for any, for all; job control on and off.
for i in 3 1 2; do (sleep 0.$i; exit $i) & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; echo "status $?"; done
(exit 7) & wait -n; echo "any $?"
for i in $(seq 1 40); do (: $((i * i))) & done; wait; echo all
set -m; jobs >/dev/null
sleep 60 & kill -STOP $!; sleep 0.2; jobs | sed 's/  */ /g'; kill -CONT $!
# bash first has to hear that it runs again, or wait tells of the stop.
until jobs -r >running; [ -s running ]; do sleep 0.05; done; kill $!; wait $! 2>/dev/null; echo "job $?"
set +m
exec 3>out; for i in 1 2 3 4; do (for j in $(seq 50); do echo "$i $j" >&3; done) & done; wait; sort -n out | uniq | wc -l
{ sleep 0.2; echo late; } & echo early; wait
nohup sh -c 'echo detached' >detached 2>/dev/null & wait $!; cat detached
