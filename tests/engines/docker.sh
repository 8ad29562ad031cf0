#!/bin/bash
# Runs the uses of docker.uses with runc and with runsc, in a dockerd of its own, and compares.
#
#   docker.sh RUNSC [NAME...]
#
# Exit code 0 when no use differs but those of known.docker. Needs root, and Debian's docker.io.
set -u
here=$(cd "$(dirname "$0")" && pwd)
runsc=$(realpath "$1"); shift
work=$(mktemp -d /tmp/rampart-docker.XXXXXX)
net=rampart-$$
ip netns add "$net" && nsenter --net=/run/netns/"$net" ip link set lo up
cat > "$work/daemon.json" <<X
{ "runtimes": { "runsc": { "path": "$runsc", "runtimeArgs": ["--overlay2=none"] } } }
X
export DOCKER_HOST=unix://$work/docker.sock
# Its own network namespace, so that its rules and its bridge are nobody else's. By nsenter, as `ip netns exec`
# hides the control groups.
nsenter --net=/run/netns/"$net" dockerd --config-file "$work/daemon.json" --data-root "$work/data" \
    --exec-root "$work/exec" -H "$DOCKER_HOST" -p "$work/docker.pid" --storage-driver "${STORAGE:-overlay2}" \
    > "$work/dockerd.log" 2>&1 &
daemon=$!
clean() {
    docker ps -aq | xargs -r docker rm -f > /dev/null 2>&1
    kill "$daemon" 2> /dev/null; wait "$daemon" 2> /dev/null
    ip netns del "$net"
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap clean EXIT
for _ in $(seq 300); do docker version > /dev/null 2>&1 && break; sleep 0.1; done
docker version > /dev/null || { tail "$work/dockerd.log"; exit 1; }

# The image: a static busybox.
I=bb
mkdir -p "$work/image"/{bin,etc,tmp,root,proc,sys,dev,var}
cp "$(command -v busybox)" "$work/image/bin/"
for name in $("$work/image/bin/busybox" --list); do
    [ "$name" = busybox ] || ln -sf busybox "$work/image/bin/$name"
done
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n' > "$work/image/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' > "$work/image/etc/group"
chmod 1777 "$work/image/tmp"
tar -C "$work/image" -c . | docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' - $I > /dev/null

run() { docker run --runtime "$R" --network none "$@"; }

# One use with one runtime: what it prints, and its exit code.
use() {
    R=$1 C=use-$1-$2 T=$work/folder
    rm -rf "$T"; mkdir "$T"
    export R C T I work
    export -f run
    timeout 60 bash -c "$3" 2>&1 | sed "s/use-$1-/use-/g; s/[0-9a-f]\{64\}/ID/g"
    echo "exit ${PIPESTATUS[0]}"
    docker ps -aq | xargs -r docker rm -f > /dev/null 2>&1
}

differ=0 same=0 failures=()
while IFS= read -r -d $'\x1e' block; do
    name=${block%%$'\n'*} text=${block#*$'\n'}
    [ -n "$name" ] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    a=$(use runc "$name" "$text") b=$(use runsc "$name" "$text")
    if [ "$a" = "$b" ]; then
        same=$((same + 1))
        [ -z "${VERBOSE:-}" ] || printf 'same    %s\n%s\n' "$name" "$a"
    else
        differ=$((differ + 1)); failures+=("$name")
        printf 'DIFFERS %s\n' "$name"
        diff <(echo "$a") <(echo "$b") | sed 's/^/    /'
    fi
done < <(awk '/^#( |$)/ {next} /^## / { if (n) printf "\x1e"; n=1; print substr($0,4); next } {print} END {printf "\x1e"}' "$here/docker.uses")
echo "docker: $same uses the same, $differ different"
known=$(grep -v '^#' "$here/known.docker" 2> /dev/null | cut -d: -f1)
unknown=0
for name in "${failures[@]}"; do
    grep -qx "$name" <<< "$known" || { echo "not known: $name"; unknown=1; }
done
exit $unknown
