# needs: true
work() { for i in $(seq 200); do /bin/true; done; }
