# Finding, sorting and summing a part of /usr/share.
cd /usr/share
find common-licenses perl5 misc -type f 2>/dev/null | sort | head -200 >"$TMPDIR/list"
wc -l <"$TMPDIR/list"
xargs -d '\n' sha256sum <"$TMPDIR/list" | sha256sum
xargs -d '\n' cat <"$TMPDIR/list" | wc
find common-licenses -type l -printf '%f -> %l\n' | sort
du -b --apparent-size common-licenses/GPL-2; stat -L -c '%s %a %F' common-licenses/GPL-2
ls -l common-licenses | awk '{print $1, $5, $9}' | sort
find zoneinfo/Europe -name 'B*' -newermt 2000-01-01 -size -10k | sort
cut -d: -f1 /etc/passwd | head -3; sort -t: -k3 -n /etc/passwd | head -3; paste <(seq 3) <(seq 4 6)
comm -12 <(seq 1 5) <(seq 3 8); join <(printf '1 a\n2 b\n') <(printf '1 x\n2 y\n'); split -l 50 "$TMPDIR/list" "$TMPDIR/part."; ls "$TMPDIR"
base64 <common-licenses/BSD | md5sum; od -An -tx1 -N16 common-licenses/BSD; tac common-licenses/BSD | head -2; shuf -i 1-100 | sort -n | tail -1
seq 1 100000 | sort -R | sort -n | md5sum; date -d @86400 +%F; expr 3 + 4; factor 360; numfmt --to=iec 1048576
