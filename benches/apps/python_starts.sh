# needs: python3
prepare() { readlink -f "$(python3 -c 'import sys; print(sys.executable)')" >python; }
work() {
  read -r python <python
  for i in $(seq 20); do "$python" -c pass; done
}
