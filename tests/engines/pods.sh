#!/bin/bash
# Pods of two containers under a containerd of its own, started by hand: that they share localhost and nothing
# else of what containers have to themselves, that exec, exit codes, kill and delete are each container's own, and
# that many at a time start and leave nothing.
#
#   pods.sh RUNSC [PODS]
set -u
runsc=$(realpath "$1") pods=${2:-10}
work=$(mktemp -d /tmp/rampart-pods.XXXXXX)
bad=0
fault() { echo "pods: $*"; bad=$((bad + 1)); }
cat > "$work/runtime" <<X
#!/bin/sh
exec $runsc --overlay2=none --network=none --log $work/log "\$@"
X
chmod +x "$work/runtime"
cat > "$work/config.toml" <<X
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$work/sock"
[ttrpc]
address = "$work/ttrpc"
X
setsid containerd -c "$work/config.toml" > "$work/containerd.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do ctr -a "$work/sock" version > /dev/null 2>&1 && break; sleep 0.1; done
ctr() { timeout 60 /usr/bin/ctr -a "$work/sock" -n rampart-pods "$@"; }

# An image with a shell: busybox, in the form of docker save.
mkdir -p "$work/layer/"{bin,proc,dev,sys,tmp}
cp "$(command -v busybox)" "$work/layer/bin/busybox"
for name in sh sleep nc ps cat true; do ln -s busybox "$work/layer/bin/$name"; done
tar -C "$work/layer" -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
config="{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}"
echo "$config" > "$work/config.json"
echo '[{"Config":"config.json","RepoTags":["rampart/pods:1"],"Layers":["layer.tar"]}]' > "$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr image import "$work/image.tar" > "$work/import" 2>&1 || fault "no image: $(cat "$work/import")"
image=$(ctr image ls -q | head -1)

# start KIND POD ID COMMAND...
start() {
    local kind=$1 pod=$2 id=$3
    shift 3
    ctr run -d --runc-binary "$work/runtime" --annotation "io.kubernetes.cri.sandbox-id=$pod" \
        --annotation "io.kubernetes.cri.container-type=$kind" "$image" "$id" "$@" < /dev/null > "$work/out.$id" 2>&1
}
remove() {
    ctr task kill -s KILL "$1" > /dev/null 2>&1
    for _ in $(seq 100); do
        ctr task ls 2> /dev/null | grep -q "^$1 .*STOPPED" && break
        sleep 0.1
    done
    ctr task rm "$1" > /dev/null 2>&1
    ctr container rm "$1" || fault "container $1 cannot be removed"
}
# is NAME WANTED GOT
is() { [ "$2" = "$3" ] || fault "$1: $3 instead of $2"; }

start sandbox one one sh -c 'while :; do sleep 1; done' || fault "no sandbox: $(cat "$work/out.one")"
start container one two sh -c 'nc -l -p 9000 -e echo shared; while :; do sleep 1; done' ||
    fault "no container: $(cat "$work/out.two")"
sleep 1
is localhost shared "$(ctr task exec --exec-id a one sh -c 'nc 127.0.0.1 9000 < /dev/null')"
is "its first process" 1 "$(ctr task exec --exec-id b two sh -c 'ps | grep -c "^ *1 .*9000"')"
ctr task exec --exec-id c two sh -c 'echo x > /mine; exit 7' > /dev/null 2>&1
is "an exit code" 7 $?
is "a root of its own" no "$(ctr task exec --exec-id d one sh -c 'cat /mine 2> /dev/null || echo no')"
remove two
is "the sandbox goes on" 1 "$(ctr task ls | grep -c '^one .*RUNNING')"
start container one three sh -c 'exit 5' || fault "no third container: $(cat "$work/out.three")"
start container one four sleep 1000 || fault "no fourth container: $(cat "$work/out.four")"
remove three
ctr task kill -s KILL one > /dev/null 2>&1
for _ in $(seq 100); do ctr task ls | grep -q '^four .*STOPPED' && break; sleep 0.1; done
is "all end with the sandbox" 1 "$(ctr task ls | grep -c '^four .*STOPPED')"
remove four
remove one

pod() {
    start sandbox "p$1" "p$1" sleep 1000 && start container "p$1" "m$1" sleep 1000 ||
        { echo "pods: pod $1: $(cat "$work/out.p$1" "$work/out.m$1" 2> /dev/null)"; touch "$work/failed"; }
}
waits=()
for n in $(seq "$pods"); do pod "$n" & waits+=($!); done
wait "${waits[@]}"
[ -e "$work/failed" ] && fault "pods did not start"
is "running" $((2 * pods)) "$(ctr task ls | grep -c RUNNING)"
waits=()
for n in $(seq "$pods"); do { remove "m$n"; remove "p$n"; } & waits+=($!); done
wait "${waits[@]}"
is "containers left" 0 "$(ctr container ls -q | wc -l)"
sleep 1
for pid in $(ls /proc | grep -x '[0-9]*'); do
    # What nobody has reaped yet has no program any more.
    [ "$(readlink "/proc/$pid/exe" 2> /dev/null)" = "$runsc" ] || continue
    tr '\0' '\n' < "/proc/$pid/cmdline" 2> /dev/null | grep -q "^$work/log" && fault "process $pid is left"
done
ctr image rm "$image" > /dev/null
kill "$daemon"
wait "$daemon" 2> /dev/null
rm -rf "$work"
[ "$bad" = 0 ] && echo "pods: good"
exit $((bad != 0))
