# More than a thousand short processes, one after another and at once.
# limit: 120
n=0; for i in $(seq 1000); do x=$(echo $i); n=$((n + x)); done; echo $n
for i in $(seq 100); do /bin/true || echo no; done; echo execs
for i in $(seq 60); do (exec /bin/true) & done; wait; echo together
deep() { [ "$1" = 0 ] && echo bottom || (deep $(($1 - 1))); }; deep 30
seq 100 | xargs -n 5 -P 4 echo | wc -l
