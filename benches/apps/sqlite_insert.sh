# needs: sqlite3
prepare() {
  echo 'create table t(a integer primary key, b text); begin;' >in.sql
  seq 100000 | sed "s/.*/insert into t values(&, 'row &');/" >>in.sql
  echo 'commit; select count(*) from t;' >>in.sql
}
work() { sqlite3 new.db <in.sql; }
