# Here-documents, arrays, arithmetic, expansion, globs, redirections.
name=world; cat <<END; cat <<'END'; cat <<-END
hello $name $((6 * 7)) $(echo sub)
END
raw $name
END
	stripped
	END
cat <<<"here string"
declare -A map=([one]=1 [two]=2); for k in one two; do echo "$k=${map[$k]}"; done
list=(a "b c" d); echo "${#list[@]} ${list[@]:1:2} ${list[-1]}"
s=abcdef; echo "${s:2:3} ${s/cd/XX} ${s^^} ${s%ef} ${#s}"
[[ foo123 =~ ^([a-z]+)([0-9]+)$ ]] && echo "${BASH_REMATCH[2]}"
mkdir d; touch d/{a,b,c}.txt d/z.log; echo d/*.txt; shopt -s nullglob; echo d/*.none end
f() { local x=$1; ((x <= 1)) && { echo 1; return; }; echo $((x * $(f $((x - 1))))); }; f 10
exec 3>&1 4>file; echo to4 >&4; echo to3 >&3; cat file; echo more >>file; wc -l <file
(set -o noclobber; echo x >file) 2>/dev/null; echo "noclobber $?"
read -r -d '' two <<<$'a\nb'; echo "$two"; printf '%05d|%-5s|%x\n' 42 ab 255
case $name in w*) echo match;; *) echo no;; esac
source /dev/stdin <<<'echo sourced'; eval 'echo evaluated'
nosuchcommand 2>/dev/null; echo "missing $?"; ./d 2>/dev/null; echo "directory $?"
ulimit -n >/dev/null && umask && (umask 077; touch private; stat -c %a private)
