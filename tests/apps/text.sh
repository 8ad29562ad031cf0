# grep, sed and awk over licences.
cd /usr/share/common-licenses
grep -c the GPL-2; grep -io 'free software' GPL-3 | sort | uniq -c; grep -rn 'WARRANTY' BSD | head -3; grep -E '^ *[0-9]+\.' GPL-2 | head -4
sed -n '1,3p;$p' BSD; sed -E 's/[Ss]oftware/<&>/g; /^$/d' BSD | md5sum; sed -e '/Redistribution/,/disclaimer/!d' BSD | wc -l
awk '{n += NF; for (i = 1; i <= NF; i++) w[tolower($i)]++} END {print NR, n, length(w), w["the"]}' GPL-3
awk 'BEGIN {while (("echo a; echo b" | getline x) > 0) print "got", x; print "z\ny" | "sort"; close("sort"); system("echo system"); printf "%.3f\n", atan2(0, -1)}'
tr -cs A-Za-z '\n' <GPL-2 | tr A-Z a-z | sort | uniq -c | sort -k1nr -k2 | head -5
cd "$TMPDIR"; cp /usr/share/common-licenses/BSD x; sed -i 's/the/THE/g' x; grep -c THE x; diff -u /usr/share/common-licenses/BSD x | tail -n +3 | md5sum; diff /usr/share/common-licenses/BSD x >p; patch -s -R x <p 2>/dev/null || true; wc -c <x
