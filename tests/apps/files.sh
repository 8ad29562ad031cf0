# Making, changing, linking, moving and removing files.
set -e
mkdir -p a/b/c; echo one >a/f; ln a/f a/hard; ln -s f a/soft; stat -c '%n %h %F' a/f a/hard a/soft
chmod 640 a/f; stat -c %a a/hard; chown 12:34 a/f; stat -c '%u:%g' a/soft a/f
touch -d '2020-02-02 02:02:02 UTC' a/f; stat -c %Y a/f; truncate -s 100000 a/sparse; stat -c %s a/sparse
cp -a a z; diff -r a z && echo same; mv z/b z/moved; find z | sort; rm -r z; test -e z || echo gone
cat a/soft; readlink a/soft; realpath --relative-to=. a/soft; ln -sf nowhere a/soft; cat a/soft 2>/dev/null || echo dangling
dd if=/dev/zero of=big bs=64K count=64 status=none; dd if=big bs=1M skip=1 count=1 status=none | wc -c; printf X | dd of=big bs=1 seek=5 conv=notrunc status=none; od -An -c -N8 big
mkfifo p; stat -c %F p; rmdir a/b/c; rmdir a 2>/dev/null || echo not empty
chmod 000 a/f; su nobody -s /bin/sh -c 'cat a/f' 2>/dev/null || echo denied; cat a/f
mkdir sticky; chmod 1777 sticky; stat -c %A sticky; cd a; rm -f ../a/f; cd ..; ls a
install -m 755 /bin/true t; ./t && echo ran; cmp t /bin/true && echo identical
for i in $(seq 300); do echo $i >n$i; done; ls n* | wc -l; cat n* | paste -sd+ | bc 2>/dev/null || echo no bc; rm n*
exec 9>lock; flock 9; (flock -n 9.lock true; flock -n lock -c true || echo locked); sync; df . >/dev/null; echo end
