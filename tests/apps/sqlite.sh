# The sqlite3 shell: a database of some size, indices, a transaction rolled back, a dump restored.
# needs: sqlite3
set -e
sqlite3 db <<'S'
create table t(id integer primary key, a int, b text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000) insert into t select x, x * 7919 % 1000, 'row ' || x from c;
create index ia on t(a); select count(*), sum(a), max(b) from t; begin; delete from t; rollback; select count(*) from t where a between 10 and 20;
pragma journal_mode=wal; update t set a = a + 1 where id % 3 = 0; select sum(a) from t; pragma integrity_check; vacuum;
S
sqlite3 db .dump | sqlite3 copy; sqlite3 copy 'select count(*), sum(a) from t'; sqlite3 db .dump | md5sum; ls
for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' db "insert into t(a, b) values($i, 'x')" & done; wait; sqlite3 db 'select count(*) from t'
