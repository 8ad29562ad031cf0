#!/bin/bash
# Starts containers and kills one of their processes with SIGKILL at a random moment: runsc while it creates,
# starts, deletes or runs something beside; the Sentry; the Gofer; a process of the guest. Each container must be
# deletable afterwards, and nothing of it may be left: no process, control group or state. Then starts many at a
# time, which must all start.
#
#   kills.sh RUNSC [KILLS [PARALLEL]]
set -u
runsc=$(realpath "$1") kills=${2:-500} parallel=${3:-100}
work=$(mktemp -d /tmp/rampart-kills.XXXXXX)
group=rampart-kills-$$
mkdir -p "$work/rootfs/"{bin,proc,dev,sys,tmp}
cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
for name in sh sleep true; do ln -s busybox "$work/rootfs/bin/$name"; done
cat > "$work/config.json" <<X
{ "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "hostname": "k",
  "process": { "args": ["sh", "-c", "sleep 1000 & sleep 1000"], "cwd": "/", "env": ["PATH=/bin"],
               "user": { "uid": 0, "gid": 0 } },
  "mounts": [ { "destination": "/proc", "type": "proc", "source": "proc" } ],
  "linux": { "cgroupsPath": "/$group/ID", "resources": { "memory": { "limit": 268435456 } },
             "namespaces": [ { "type": "pid" } ] } }
X
run() { "$runsc" --root "$work/state" --log "$work/log" "$@" < /dev/null > "$work/out" 2>&1; }
# In the background, so that the pid is that of runsc itself.
start() { exec "$runsc" --root "$work/state" --log "$work/log" "$@" < /dev/null > "$work/out.start" 2>&1; }
bundle() {
    mkdir -p "$work/b/$1"
    sed "s|/ID\"|/$1\"|; s|\"rootfs\"|\"$work/rootfs\"|" "$work/config.json" > "$work/b/$1/config.json"
}
# Processes of the host that belong to a sandbox of this script: those in its groups, and those by its names.
left() {
    cat /sys/fs/cgroup/memory/"$group"/*/cgroup.procs /sys/fs/cgroup/"$group"/*/cgroup.procs 2> /dev/null
    for pid in $(ls /proc | grep -x '[0-9]*'); do
        [ "$(readlink "/proc/$pid/exe" 2> /dev/null)" = "$runsc" ] || continue
        tr '\0' ' ' < "/proc/$pid/environ" 2> /dev/null | grep -q "KILLS=$$" && echo "$pid"
    done
}
export KILLS=$$
bad=0
fault() { echo "kills: $*"; bad=$((bad + 1)); }
pause() { sleep "0.0$((RANDOM % 90 + 10))"; }

for i in $(seq "$kills"); do
    id=k$i
    bundle "$id"
    case $((RANDOM % 6)) in
        0) what=create; start create --bundle "$work/b/$id" "$id" & ;;
        1) what=run; start run -d --bundle "$work/b/$id" "$id" & ;;
        2) what=start; run create --bundle "$work/b/$id" "$id"; start start "$id" & ;;
        3) what=exec; run run -d --bundle "$work/b/$id" "$id"; start exec "$id" sleep 5 & ;;
        4) what=delete; run run -d --bundle "$work/b/$id" "$id"; start delete --force "$id" & ;;
        5) what=inside; run run -d --bundle "$work/b/$id" "$id"; true & ;;
    esac
    victim=$!
    pause
    if [ "$what" = inside ]; then
        # The Sentry, the Gofer, or a process of the guest.
        victim=$(cat /sys/fs/cgroup/memory/"$group/$id"/cgroup.procs /sys/fs/cgroup/"$group/$id"/cgroup.procs \
            2> /dev/null | shuf -n 1)
    fi
    [ -n "$victim" ] && kill -9 "$victim" 2> /dev/null
    wait 2> /dev/null
    run delete --force "$id" || fault "$id ($what): delete: $(cat "$work/out")"
    run state "$id" && fault "$id ($what): there is a state left"
    rm -rf "$work/b/$id"
    ls -d /sys/fs/cgroup/*/"$group/$id" /sys/fs/cgroup/"$group/$id" > "$work/groups" 2> /dev/null
    [ -s "$work/groups" ] && fault "$id ($what): control groups left: $(head -1 "$work/groups")"
done
sleep 1
rest=$(left)
[ -z "$rest" ] || fault "processes left: $(for p in $rest; do tr '\0' ' ' < /proc/$p/cmdline; done)"
echo "kills: $kills kills, $bad faults"

began=$(date +%s%N)
for i in $(seq "$parallel"); do
    bundle "p$i"
    { "$runsc" --root "$work/state" run -d --bundle "$work/b/p$i" "p$i" < /dev/null > "$work/p$i" 2>&1 ||
        echo "p$i" >> "$work/failed"; } &
done
wait
echo "kills: $parallel started together in $((($(date +%s%N) - began) / 1000000)) ms"
[ -e "$work/failed" ] && fault "not started: $(cat "$work/failed" | tr '\n' ' '): $(cat "$work/$(head -1 "$work/failed")")"
for i in $(seq "$parallel"); do run delete --force "p$i" || fault "p$i: $(cat "$work/out")"; done
sleep 1
rest=$(left)
[ -z "$rest" ] || fault "processes left after all"
ls "$work/state" | grep -q . && fault "state left: $(ls "$work/state")"
rmdir /sys/fs/cgroup/*/"$group" /sys/fs/cgroup/"$group" 2> /dev/null
[ $bad = 0 ] && rm -rf "$work"
exit $((bad > 0))
