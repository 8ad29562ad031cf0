# needs: ls
work() { ls -lR /usr/share >/dev/null; }
