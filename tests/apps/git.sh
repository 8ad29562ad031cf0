# git: init, commit, branch, merge, clone, gc, fsck.
# needs: git
# limit: 120
set -e
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
git config --global user.name Guest; git config --global user.email guest@example.org; git config --global init.defaultBranch main; git config --global gc.auto 0
git init -q repo; cd repo; for i in $(seq 50); do mkdir -p d$((i % 5)); seq $i 200 >d$((i % 5))/f$i; done; git add .; git commit -qm first; git rev-parse HEAD
for i in 1 2 3 4 5; do echo $i >>d1/f1; git commit -qam "change $i"; done; git log --oneline | wc -l; git log -1 --format=%H%n%s
git checkout -qb side HEAD~2; echo side >side; git add side; git commit -qm side; git checkout -q main; git merge -q --no-edit side; git log --oneline --graph | wc -l; ls
git diff --stat HEAD~1 | tail -1; git status --short | wc -l; echo x >>side; git stash -q; git stash pop -q; git status --short; git checkout -q side; git tag v1; git blame d1/f1 | tail -1 | cut -c1-8
cd ..; git clone -q repo copy; cd copy; git log --format=%H -1; git gc -q; git fsck 2>&1 | grep -v '^Checking' | wc -l; git count-objects -v | grep -E '^(count|packs)'; git archive HEAD | tar -t | wc -l
cd ..; git clone -q --bare repo bare.git; cd copy; git remote set-url origin ../bare.git; echo pushed >p; git add p; git commit -qm p; git push -q origin HEAD; git ls-remote ../bare.git | md5sum; git rebase -q HEAD~1; git grep -c 150 | head -3
