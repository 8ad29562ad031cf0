#!/bin/bash
# serve.sh HOST NAME...: starts the servers NAME at address HOST, says "ready", and serves until its input ends.
# For use.sh at the other end of a link. SHARED names a directory with `http2` and an SSH key; what is written is
# kept in a directory below /tmp.
set -u
host=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/serve.XXXXXX)
chmod 755 "$dir"
cd "$dir" || exit 1
started=()
trap 'kill "${started[@]}" 2>/dev/null; wait; rm -rf "$dir"' EXIT
PATH=$PATH:/usr/sbin:/sbin

# begin PORT COMMAND...: starts one, and waits until it listens.
begin() {
    local port=$1
    shift
    "$@" >"$dir/$port.log" 2>&1 </dev/null &
    started+=($!)
    local n
    for n in $(seq 200); do
        listens "$port" && return 0
        kill -0 "${started[-1]}" 2>/dev/null || break
        sleep 0.05
    done
    echo "not ok start $1: $(tail -n 3 "$dir/$port.log" | tr '\n' ' ')"
}

listens() {
    local hex
    hex=$(printf ':%04X ' "$1")
    grep -q "$hex[0-9A-F:]* 0A" /proc/net/tcp /proc/net/tcp6 && return 0
    grep -q "$hex[0-9A-F:]* 07" /proc/net/udp /proc/net/udp6
}

pages() {
    mkdir -p pages
    echo "a page" >pages/index.html
    head -c 8000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 >pages/large 2>/dev/null
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=peer 2>/dev/null
}

serve_nginx() {
    pages
    mkdir -p logs
    cat >nginx.conf <<END
daemon off; master_process off; pid $dir/nginx.pid; error_log $dir/nginx.log;
events { worker_connections 512; }
http {
    access_log off; client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    server { listen 8000; listen [::]:8000; root $dir/pages; }
    server { listen 8443 ssl http2; root $dir/pages; ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem; }
}
END
    begin 8000 nginx -p "$dir" -c "$dir/nginx.conf"
}

serve_haproxy() {
    cat >haproxy.cfg <<END
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend in
    bind $host:8001
    default_backend out
backend out
    server one $host:8000
END
    begin 8001 haproxy -db -f haproxy.cfg
}

serve_redis() { begin 6379 redis-server --bind "$host" --save '' --protected-mode no --dir "$dir"; }

serve_memcached() { begin 11211 memcached -u nobody -l "$host"; }

serve_postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
    install -d -o nobody data
    local as=(setpriv --reuid nobody --regid nogroup --clear-groups)
    "${as[@]}" "$bin/initdb" -D data -A trust -U test --no-sync >initdb.log 2>&1 || cat initdb.log
    echo "host all all 10.77.0.0/24 trust" >>data/pg_hba.conf
    begin 5432 "${as[@]}" "$bin/postgres" -D data -h "$host" -k "$dir/data" -c fsync=off
}

serve_ssh() {
    mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f host.key
    cp "$SHARED/key.pub" authorized && chmod 600 authorized
    cat >sshd.conf <<END
Port 2222
ListenAddress $host
HostKey $dir/host.key
AuthorizedKeysFile $dir/authorized
PidFile none
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
END
    begin 2222 "$(command -v sshd)" -D -e -f "$dir/sshd.conf"
}

serve_dns() {
    begin 53 dnsmasq -k --no-resolv --no-hosts --log-facility=- -u root --pid-file= --listen-address="$host" \
        --bind-interfaces --address=/a.test/192.0.2.7 --address=/a.test/2001:db8::7 --address=/peer.test/"$host" \
        --txt-record=long.test,"$(printf 'x%.0s' $(seq 250))" --cname=b.test,a.test
}

serve_iperf() { begin 5201 iperf3 -s -B "$host"; }

serve_go() { begin 8444 "$SHARED/http2" serve "$host:8444"; }

serve_node() { begin 8002 node "$here/node.js" serve "$host"; }

serve_asyncio() { begin 8003 /usr/bin/python3 "$here/asyncio-echo.py" "$host"; }

for name in "$@"; do
    "serve_$name"
done
echo ready
cat >/dev/null
