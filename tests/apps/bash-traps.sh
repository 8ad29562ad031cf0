# Traps: on signals, on exit, ignored and inherited ones.
trap 'echo got usr1' USR1
trap 'echo got term; got=1' TERM
trap 'echo bye $?' EXIT
kill -USR1 $$; kill -TERM $$; echo "after $got"
(trap - TERM; kill -TERM $BASHPID; echo never); echo "subshell $?"
sh -c 'kill -KILL $$'; echo "killed $?"
trap '' INT; sh -c 'kill -INT $$; echo survived'; trap - INT
sleep 60 & pid=$!; kill $pid; wait $pid; echo "sleep $?"
trap 'echo child done' CHLD; true & wait; trap - CHLD
(sleep 0.2; kill -USR1 $$) & wait $!; echo "wait over"
while :; do sleep 0.05; [ -e flag ] && break; : >flag; done; echo loop
timeout 0.3 sleep 60; echo "timeout $?"
trap 'echo err on $LINENO; ' ERR; false; trap - ERR
exit 0
