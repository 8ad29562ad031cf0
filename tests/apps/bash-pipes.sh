# Pipelines, their statuses, process substitution, and readers that leave early.
set -u
seq 1 1000 | grep 7 | sort -rn | head -5
false | true | sh -c 'exit 3'; echo "statuses ${PIPESTATUS[*]}"
yes | head -n 100000 | wc -l
diff <(seq 1 10) <(seq 1 2 10); echo "diff $?"
seq 1 20000 | tee >(wc -l >lines) | md5sum; wait; sleep 0.2; cat lines
mkfifo pipe; (for i in 1 2 3; do echo "through $i"; done >pipe) & cat <pipe; wait
exec 5<>pipe; echo kept >&5; read -r line <&5; echo "$line"; exec 5>&-
printf '%s\n' a b c | while read -r x; do echo "<$x>"; done
head -c 300000 /dev/zero | tr '\0' x | fold -w 100 | sort -u
coproc cat; echo hi >&"${COPROC[1]}"; read -r back <&"${COPROC[0]}"; echo "coproc $back"
