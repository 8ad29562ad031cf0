#!/bin/bash
# Tasks of a containerd of its own through containerd-shim-runsc-v1: output, input, terminals, exit codes, exec,
# signals, pause, stats, limits, events, pods, what happens when a process dies at a random moment, and what is left
# afterwards.
#
#   shim.sh RUNSC SHIM [PODS [KILLS]]
set -u
runsc=$(realpath "$1") shim=$(realpath "$2") pods=${3:-10} kills=${4:-20}
work=$(mktemp -d /tmp/rampart-shim.XXXXXX) || exit 1
space=rampart-shim-$$
bad=0
fault() { echo "shim: $*"; bad=$((bad + 1)); }
# is NAME WANTED GOT
is() { [ "$2" = "$3" ] || fault "$1: '$3' instead of '$2'"; }
# Waits until a command succeeds, for at most a minute.
await() { for _ in $(seq 600); do "$@" > /dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }

mkdir "$work/bin"
ln -s "$shim" "$work/bin/containerd-shim-runsc-v1"
cat > "$work/runsc.toml" <<END
binary_name = "$runsc"
root = "$work/runsc"
[runsc_config]
overlay2 = "none"
network = "none"
END
cat > "$work/config.toml" <<END
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$work/sock"
[ttrpc]
address = "$work/ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "$work/opt"
END
daemon=
start_daemon() {
    PATH=$work/bin:$PATH setsid containerd -c "$work/config.toml" >> "$work/containerd.log" 2>&1 &
    daemon=$!
    await /usr/bin/ctr -a "$work/sock" version || fault "containerd does not start"
}
cat > "$work/bin/ctr" <<END
#!/bin/sh
exec timeout 120 /usr/bin/ctr -a "$work/sock" -n "$space" "\$@"
END
cat > "$work/bin/run" <<END
#!/bin/sh
exec "$work/bin/ctr" run --runtime io.containerd.runsc.v1 --runtime-config-path "$work/runsc.toml" "\$@"
END
chmod +x "$work/bin/ctr" "$work/bin/run"
ctr() { "$work/bin/ctr" "$@"; }
run() { "$work/bin/run" "$@"; }
sockets() { find /run/containerd/s -mindepth 1 2> /dev/null | sort; }
before=$(sockets)
start_daemon

# An image with a shell: busybox, in the form of docker save.
mkdir -p "$work/layer/"{bin,proc,dev,sys,tmp}
cp "$(command -v busybox)" "$work/layer/bin/busybox"
for name in sh sleep nc ps cat true tty stty head tail wc seq kill id; do
    ln -s busybox "$work/layer/bin/$name"
done
tar -C "$work/layer" -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
config="{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}"
echo "$config" > "$work/config.json"
echo '[{"Config":"config.json","RepoTags":["rampart/shim:1"],"Layers":["layer.tar"]}]' > "$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr image import "$work/image.tar" > "$work/import" 2>&1 || fault "no image: $(cat "$work/import")"
image=$(ctr image ls -q | head -1)

stopped() { ctr task ls | grep -q "^$1 .*STOPPED"; }
running() { ctr task ls | grep -q "^$1 .*RUNNING"; }
remove() {
    ctr task kill -s KILL "$1" > /dev/null 2>&1
    await stopped "$1"
    ctr task rm "$1" > "$work/rm.$1" 2>&1
    ctr container rm "$1" || fault "container $1 cannot be removed: $(cat "$work/rm.$1")"
}
# told PATTERN: whether there was such an event.
told() { await grep -q "$1" "$work/events" || fault "no event $1"; }

# What ends by itself. ctr may lose the output of a task that ends before ctr has opened its fifos, so that tasks with
# little of it wait until they are known to run.
once() { await running "$1"; echo; }
is output "out err" "$(once one | run --rm "$image" one sh -c 'echo out; echo err >&2; read x' 2> "$work/err") $(cat "$work/err")"
# ctr does not close the input of a task that ends before it knows the task.
is input words "$( (echo words; await running two) | run --rm "$image" two cat)"
is "much output" "$(seq 20000 | md5sum)" "$(run --rm "$image" three seq 20000 < /dev/null | md5sum)"
run --rm "$image" four sh -c 'exit 42' < /dev/null
is "an exit code" 42 $?
run --rm "$image" five /no/such < /dev/null > "$work/five" 2>&1 && fault "a program that is not there runs"
grep -q 'no/such' "$work/five" || fault "a program that is not there: $(cat "$work/five")"
ctr container rm five > /dev/null 2>&1
is terminal "/dev/pts/0" \
    "$(once six | script -qec "'$work/bin/run' -t --rm $image six sh -c 'tty; read x'" /dev/null | grep -o /dev/pts/0)"

# Options that are wrong are named.
echo 'binary = "x"' > "$work/bad.toml"
ctr run -d --runtime io.containerd.runsc.v1 --runtime-config-path "$work/bad.toml" "$image" bad true \
    > "$work/bad" 2>&1 && fault "a bad configuration is taken"
grep -q 'bad.toml.*binary' "$work/bad" || fault "a bad configuration: $(cat "$work/bad")"
ctr container rm bad > /dev/null 2>&1

# What goes on.
timeout 600 /usr/bin/ctr -a "$work/sock" events > "$work/events" 2>&1 &
events=$!
run -d "$image" web sh -c 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done' < /dev/null \
    > "$work/web" 2>&1 || fault "web does not start: $(cat "$work/web")"
is "an executed one" in "$(ctr task exec --exec-id a web sh -c 'echo in')"
ctr task exec --exec-id b web sh -c 'exit 7' > /dev/null 2>&1
is "its exit code" 7 $?
is "its input" typed "$( (echo typed; await grep -q 'exec-started.*"c"' "$work/events") | ctr task exec --exec-id c web cat)"
is "its terminal" /dev/pts/0 \
    "$(script -qec "'$work/bin/ctr' task exec -t --exec-id d web tty" /dev/null < /dev/null | grep -o /dev/pts/0)"
# A client that leaves does not take it along.
script -qec "stty rows 31 cols 97; '$work/bin/ctr' task exec -t --exec-id size web sh -c 'sleep 1; stty size'" \
    /dev/null < /dev/null > "$work/size" 2>&1
grep -q '31 97' "$work/size" || fault "the size of a terminal: $(cat "$work/size")"
ctr task exec -d --exec-id e web sleep 1000 > "$work/exec" 2>&1 || fault "no detached one: $(cat "$work/exec")"
is processes 2 "$(ctr task ps web | grep -c '^[0-9]')"
ctr task kill --exec-id e -s TERM web || fault "an executed one cannot be signalled"
told '/tasks/exit.*"id":"e".*"exit_status":143'
ctr task metrics web > "$work/metrics" 2>&1 || fault "no metrics: $(cat "$work/metrics")"
grep -qE '^memory\.usage(_in_bytes)? +[1-9]' "$work/metrics" || fault "metrics: $(cat "$work/metrics")"
ctr task pause web || fault "cannot pause"
is paused 1 "$(ctr task ls | grep -c '^web .*PAUSED')"
count() { cat "$work"/state/io.containerd.runtime.v2.task/"$space"/web/rootfs/tmp/count; }
a=$(count)
sleep 0.3
is "paused means still" "$a" "$(count)"
ctr task resume web || fault "cannot resume"
more() { [ "$(count)" -gt "$a" ]; }
await more || fault "does not go on"
ctr task checkpoint web > "$work/checkpoint" 2>&1 && fault "a checkpoint was made"
grep -qi checkpoint "$work/checkpoint" || fault "checkpoint: $(cat "$work/checkpoint")"
# A containerd that is restarted finds its tasks again.
kill "$daemon"; wait "$daemon" 2> /dev/null
kill "$events" 2> /dev/null; wait "$events" 2> /dev/null
start_daemon
running web || fault "a restarted containerd has lost a task"
is "after a restart" again "$(ctr task exec --exec-id f web sh -c 'echo again')"
timeout 600 /usr/bin/ctr -a "$work/sock" events > "$work/events" 2>&1 &
events=$!
ctr task exec --exec-id g web true
told '/tasks/exit.*"id":"g"'
remove web
told '/tasks/exit.*"container_id":"web".*"exit_status":137'

# What runs out of memory is reported as that.
run -d --memory-limit 67108864 "$image" oom sh -c 'head -c 300m /dev/zero | tail > /dev/null; sleep 1000' \
    < /dev/null > "$work/oom" 2>&1 || fault "no container with a limit: $(cat "$work/oom")"
told '/tasks/oom.*"container_id":"oom"'
remove oom
kill "$events" 2> /dev/null; wait "$events" 2> /dev/null

# Pods: one shim and one sandbox for all of their containers.
# pod KIND POD ID COMMAND...
pod() {
    local kind=$1 pod=$2 id=$3
    shift 3
    run -d --annotation "io.kubernetes.cri.sandbox-id=$pod" --annotation "io.kubernetes.cri.container-type=$kind" \
        "$image" "$id" "$@" < /dev/null > "$work/out.$id" 2>&1
}
pod sandbox s s sleep 1000 || fault "no sandbox: $(cat "$work/out.s")"
pod container s c sh -c 'nc -l -p 9000 -e echo shared; sleep 1000' || fault "no container: $(cat "$work/out.c")"
listens() { [ "$(ctr task exec --exec-id "a$RANDOM" s sh -c 'nc 127.0.0.1 9000 < /dev/null')" = shared ]; }
await listens || fault "a pod has no localhost of its own"
is "shims of a pod" 1 "$(pgrep -fc -- "-namespace $space .*serve")"
ctr task exec --exec-id b c sh -c 'exit 9' > /dev/null 2>&1
is "an exit code in a pod" 9 $?
remove c
running s || fault "a pod ends with one of its containers"
pod container s d sleep 1000 || fault "no other container: $(cat "$work/out.d")"
ctr task kill -s KILL s
await stopped d || fault "a container outlives its pod"
remove d; remove s

began=$(date +%s%N)
both() {
    pod sandbox "p$1" "p$1" sleep 1000 && pod container "p$1" "m$1" sleep 1000 ||
        { echo "shim: pod $1: $(cat "$work/out.p$1" "$work/out.m$1" 2> /dev/null)"; touch "$work/failed"; }
}
waits=()
for n in $(seq "$pods"); do both "$n" & waits+=($!); done
wait "${waits[@]}"
[ -e "$work/failed" ] && fault "pods did not start"
is running $((2 * pods)) "$(ctr task ls | grep -c RUNNING)"
echo "shim: $pods pods started together in $((($(date +%s%N) - began) / 1000000)) ms"
waits=()
for n in $(seq "$pods"); do { remove "m$n"; remove "p$n"; } & waits+=($!); done
wait "${waits[@]}"
is "containers left" 0 "$(ctr container ls -q | wc -l)"

# A process dies at a random moment: the shim, or any process in the container's groups.
for n in $(seq "$kills"); do
    run -d "$image" "k$n" sh -c 'sleep 1000 & sleep 1000' < /dev/null > "$work/out.k$n" 2>&1 &
    client=$!
    sleep "0.$((RANDOM % 8))$((RANDOM % 10))"
    if [ $((n % 2)) = 0 ]; then
        victim=$(pgrep -f -- "-namespace $space -id k$n .*serve" | head -1)
    else
        victim=$(find /sys/fs/cgroup -path "*/$space/k$n/cgroup.procs" -exec cat {} + 2> /dev/null | shuf -n 1)
    fi
    [ -n "$victim" ] && kill -9 "$victim" 2> /dev/null
    wait "$client"
    gone() {
        ctr task rm -f "k$n" > "$work/out.k$n" 2>&1
        ctr container rm "k$n" >> "$work/out.k$n" 2>&1
        ! ctr container ls -q | grep -qx "k$n"
    }
    await gone || fault "k$n cannot be removed: $(cat "$work/out.k$n")"
done

# Nothing may be left.
left() {
    for pid in $(ls /proc | grep -x '[0-9]*'); do
        program=$(readlink "/proc/$pid/exe" 2> /dev/null)
        [ "$program" = "$runsc" ] || [ "$program" = "$shim" ] || continue
        tr '\0' '\n' < "/proc/$pid/environ" 2> /dev/null | grep -q "$work" && echo "$pid"
        tr '\0' '\n' < "/proc/$pid/cmdline" 2> /dev/null | grep -q "$work" && echo "$pid"
    done
}
nothing() { [ -z "$(left)" ]; }
await nothing || fault "processes left: $(for p in $(left); do tr '\0' ' ' < "/proc/$p/cmdline"; echo; done)"
grep -q " $work/state" /proc/mounts && fault "mounts left: $(grep " $work/state" /proc/mounts)"
find "$work/runsc/$space" -mindepth 1 2> /dev/null | grep -q . && fault "states left: $(ls "$work/runsc/$space")"
groups=$(find /sys/fs/cgroup -type d -path "*/$space/*" 2> /dev/null)
[ -z "$groups" ] || fault "control groups left: $groups"
is "sockets left" "" "$(comm -13 <(echo "$before") <(sockets))"
ctr image rm "$image" > /dev/null
kill "$daemon"; wait "$daemon" 2> /dev/null
find /sys/fs/cgroup -depth -type d -path "*/$space" -exec rmdir {} \; 2> /dev/null
[ -n "${KEEP:-}" ] || rm -rf "$work"
[ "$bad" = 0 ] && echo "shim: good"
exit $((bad != 0))
