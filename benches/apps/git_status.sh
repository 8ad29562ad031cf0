# needs: git
prepare() {
  for d in $(seq 100); do
    mkdir "d$d"
    for f in $(seq 50); do echo "$d $f" >"d$d/f$f"; done
  done
  git init -q . && git add . && git -c user.name=b -c user.email=b@localhost commit -qm all
}
work() { for i in 1 2 3 4 5; do git status --porcelain; done; }
