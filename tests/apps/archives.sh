# tar, gzip and xz, there and back.
# needs: tar gzip xz
set -e
cp -rL /usr/share/common-licenses src; chmod -R u=rwX,go=rX src; ln -s BSD src/link; ln src/BSD src/hard
tar -cf a.tar --sort=name --mtime=@0 --owner=0 --group=0 src; md5sum <a.tar
gzip -9nk a.tar; xz -T2 -1 -k a.tar; gunzip -c a.tar.gz | cmp - a.tar && echo gzip; xz -dc a.tar.xz | cmp - a.tar && echo xz
mkdir out; tar -C out -xzf a.tar.gz; diff -r src out/src && echo same; stat -c '%h %F' out/src/hard out/src/link
tar -tJf a.tar.xz | wc -l; tar -cz src | tar -tz | sort | md5sum; tar -cf - src | (cd out && rm -r src && tar -xf -); find out | wc -l
bzip2 -k a.tar 2>/dev/null && bunzip2 -c a.tar.bz2 | cmp - a.tar || true; gzip -l a.tar.gz | awk 'NR > 1 {print $2}'
