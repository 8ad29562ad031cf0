# needs: gcc make
prepare() {
  for i in $(seq 40); do
    printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\nint f%d(int x) { char b[64]; snprintf(b, sizeof b, "%%d", x * %d); return atoi(b) + (int)strlen(b); }\n' "$i" "$i" >"f$i.c"
  done
  printf 'libf.a: %s\n\tar rcs $@ $^\n%%.o: %%.c\n\t$(CC) -O2 -c -o $@ $<\n' "$(seq -f 'f%g.o' -s ' ' 40)" >Makefile
}
work() { make -s -j2; }
