# needs: gcc
prepare() {
  printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' >hello.c
}
work() { for i in 1 2 3 4 5; do gcc -O2 -o hello hello.c; done; }
