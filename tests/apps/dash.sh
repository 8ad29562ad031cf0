# dash, as a script's interpreter and as a pipeline's.
printf '#!/bin/sh\necho "$0 $# $*" | sed "s,.*/,,"\nexit 5\n' >s; chmod +x s; ./s a b; echo $?
sh -c 'for i in 1 2 3; do echo $i; done | while read x; do echo "<$x>"; done; set -- $(echo a b c); echo $#'
sh -ec 'false; echo never'; echo $?; sh -c 'cat <&3' 3<s | wc -l; echo 'echo stdin' | sh; sh -c 'ulimit -c 0; exec true'; echo $?
sh -c 'trap "echo t" HUP; kill -HUP $$; echo after'; sh -c 'sleep 0.1 & wait; echo waited'
