#!/bin/bash
# use.sh HOST NAME...: uses the servers NAME of serve.sh at HOST, each as its usual clients do. A line each thing:
# "ok WHAT" or "not ok WHAT: why".
set -u
host=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/use.XXXXXX)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
PATH=$PATH:/usr/sbin:/sbin
LARGE=$(head -c 8000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 2>/dev/null | sha256sum)

# check WHAT WANTED COMMAND...: COMMAND must succeed and say something that fits WANTED.
check() {
    local what=$1 wanted=$2 said
    shift 2
    if said=$(timeout 30 "$@" 2>"$dir/errors") && [[ $said == $wanted ]]; then
        echo "ok $what"
    else
        echo "not ok $what: $(printf '%s' "$said" "$(cat "$dir/errors")" | head -c 300 | tr '\n' ' ')"
    fi
}

# A command behind it: the sum of what that says.
sum=(bash -c 'set -o pipefail; "$@" | sha256sum' sum)

use_nginx() {
    check "curl" "a page" curl -sS "http://$host:8000/"
    check "curl large" "$LARGE" "${sum[@]}" curl -sS "http://$host:8000/large"
    check "curl keeps a connection" "a page*1a page*0" \
        curl -sS -w '%{num_connects}' "http://$host:8000/" "http://$host:8000/" -w '%{num_connects}'
    check "curl http2" "a page*2" curl -sS -k --http2 -w '%{http_version}' "https://$host:8443/"
    check "curl tls large" "$LARGE" "${sum[@]}" curl -sS -k "https://$host:8443/large"
    check "curl part" "$(printf 1000)" bash -c "curl -sS -r 5000-5999 http://$host:8000/large | wc -c"
    check "curl refused" "7" bash -c "curl -s http://$host:8999/; echo \$?"
    check "wget" "$LARGE" "${sum[@]}" wget -q -O - "http://$host:8000/large"
    check "wrk" "*Requests/sec*" wrk -t 1 -c 20 -d 1 "http://$host:8000/"
    check "requests" "a page 8000000" /usr/bin/python3 -c "
import requests
s = requests.Session()
print(s.get('http://$host:8000/').text.strip(), len(s.get('http://$host:8000/large').content))"
}

use_haproxy() {
    check "through haproxy" "$LARGE" "${sum[@]}" curl -sS "http://$host:8001/large"
}

use_redis() {
    check "redis-cli" "OK*value*" bash -c "printf 'set key value\nget key\n' | redis-cli -h $host"
    check "redis pipelined" "*SET*GET*" redis-benchmark -h "$host" -n 20000 -P 16 -c 20 -q -t set,get
    check "redis large" "3000000*" bash -c \
        "head -c 3000000 /dev/zero | tr '\0' x | redis-cli -h $host -x set large >/dev/null; redis-cli -h $host strlen large"
}

use_memcached() {
    check "memcached" "STORED*VALUE k 0 5*hello*" bash -c "
        exec 3<>/dev/tcp/$host/11211
        printf 'set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n' >&3
        cat <&3"
}

use_postgres() {
    local to=(-h "$host" -U test postgres)
    check "psql" "499500" psql -At "${to[@]}" -c 'select sum(n) from generate_series(0, 999) n'
    check "psql large" "2000000" bash -c "psql -At -h $host -U test postgres -c \"select repeat('x', 1999999)\" | wc -c"
    check "pgbench" "*actually processed: 200/200*" bash -c "
        pgbench -h $host -U test -i -q postgres >/dev/null 2>&1; pgbench -h $host -U test -c 4 -t 50 -S postgres"
}

use_ssh() {
    cp "$SHARED/key" key && chmod 600 key
    local to=(-F none -i key -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)
    check "ssh" "there 5" ssh "${to[@]}" "root@$host" 'echo there $((2 + 3))'
    check "ssh large" "$LARGE" bash -c "head -c 8000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 2>/dev/null |
        ssh ${to[*]} root@$host sha256sum"
    check "ssh terminal" "*/dev/pts/*" ssh -tt "${to[@]}" "root@$host" tty
    check "ssh forwards" "there*" bash -c "
        ssh ${to[*]} -N -L 127.0.0.1:2300:$host:2222 root@$host & keeper=\$!
        ssh ${to[*]/2222/2300} -o ConnectionAttempts=30 root@127.0.0.1 echo there; kill \$keeper"
}

use_dns() {
    check "dig" "192.0.2.7" dig +short "@$host" a.test
    check "dig AAAA" "2001:db8::7" dig +short "@$host" b.a.test AAAA
    check "dig by TCP" "192.0.2.7" dig +tcp +short "@$host" a.test
    check "dig TXT" "*xxxxxxx*" dig +short "@$host" long.test TXT
    check "dig nobody" "*REFUSED*" dig "@$host" example.invalid
}

# A server of iperf3 serves one test at a time, and may not yet be done with the last.
iperf=(bash -c 'for n in $(seq 20); do iperf3 -c "$@" && exit; sleep 0.1; done; exit 1' iperf "$host")

use_iperf() {
    check "iperf3 there" "*receiver*" "${iperf[@]}" -t 1
    check "iperf3 back" "*receiver*" "${iperf[@]}" -t 1 -R
    check "iperf3 four" "*SUM*receiver*" "${iperf[@]}" -t 1 -P 4
    check "iperf3 datagrams" "*receiver*" "${iperf[@]}" -t 1 -u -b 20M
    check "iperf3 both" "*receiver*" "${iperf[@]}" -t 1 --bidir
}

use_go() { check "go http2" "HTTP/2.0 8000000 20 streams" "$SHARED/http2" use "$host:8444"; }

use_node() { check "node" "200 100 requests 5000000 bytes" node "$here/node.js" use "$host"; }

use_asyncio() { check "asyncio" "200 connections" /usr/bin/python3 "$here/asyncio-echo.py" "$host" use; }

use_ping() {
    check "ping" "*3 received*" ping -n -c 3 -i 0.2 -W 2 "$host"
    check "ping large" "*2 received*" ping -n -c 2 -i 0.2 -s 4000 -W 2 "$host"
    check "ping6" "*2 received*" ping -n -c 2 -i 0.2 -W 2 "fd77::${host##*.}"
}

use_traceroute() {
    check "traceroute" "* 1 *$host*" traceroute -n -w 2 -q 1 "$host"
}

use_raw_traceroute() {
    check "traceroute by ICMP" "* 1 *$host*" traceroute -n -I -w 2 -q 1 "$host"
    check "traceroute by TCP" "* 1 *$host*" traceroute -n -T -p 8000 -w 2 -q 1 "$host"
}

use_tcpdump() {
    check "tcpdump" "*echo request*echo reply*" bash -c "
        tcpdump -n -i eth0 -c 2 icmp >dump 2>errors & dump=\$!
        for n in \$(seq 100); do grep -q listening errors && break; sleep 0.05; done
        ping -n -c 1 $host >/dev/null; wait \$dump; cat dump"
}

use_look() {
    check "ip addr" "*eth0*10.77.0.*" ip addr
    check "ip route" "*10.77.0.0/24 dev eth0*" ip route
    check "ip route get" "$host dev eth0*src 10.77.0.*" ip route get "$host"
    check "ss" "*ESTAB*$host:8000*" bash -c "exec 3<>/dev/tcp/$host/8000; ss -tn"
    check "ss -i" "*rtt:*mss:*" bash -c "exec 3<>/dev/tcp/$host/8000; ss -tni"
}

for name in "$@"; do
    "use_$name"
done
