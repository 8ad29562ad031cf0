# A generated C project of 60 files, built by make with two jobs, run, and rebuilt.
# needs: gcc make
# limit: 240
set -e
n=60; echo '#include <stdio.h>' >main.c; echo "CFLAGS = -O1 -g" >Makefile
for i in $(seq $n); do
  printf '#include "all.h"\n#include <string.h>\n#include <stdlib.h>\nint f%d(int x) { char b[64]; snprintf(b, sizeof b, "%%d", x * %d); return atoi(b) + (int)strlen(b); }\n' $i $i >f$i.c
  echo "int f$i(int);" >>decls; objects+=" f$i.o"
done
{ echo '#pragma once'; echo '#include <stdio.h>'; cat decls; } >all.h
{ echo '#include "all.h"'; echo 'int main(void) { long s = 0;'; for i in $(seq $n); do echo "s += f$i($i);"; done; echo 'printf("%ld\n", s); return 0; }'; } >main.c
printf 'prog: main.o libf.a\n\t$(CC) -o $@ main.o -L. -lf\nlibf.a:%s\n\tar rcs $@ $^\n%%.o: %%.c all.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n' "$objects" >>Makefile
make -j2 | sort | md5sum; ./prog; make; touch f7.c -d '+1 minute' 2>/dev/null; make -s 2>/dev/null && ./prog
gcc -shared -fPIC -o libx.so f1.c; gcc -o dyn -x c - -x none -L. -lx -Wl,-rpath,"$PWD" <<'C'
#include <stdio.h>
int f1(int); int main(void) { printf("%d\n", f1(20)); }
C
./dyn; echo 'int main( {' >bad.c; gcc -c bad.c 2>/dev/null || echo refused; nm f1.o | awk '{print $NF}' | sort; gcc -pthread -O2 -flto -o lto main.c f*.c && ./lto
