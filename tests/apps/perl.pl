# Perl: files, processes, pipes, signals, sorting, sockets.
use strict; use warnings; use Socket; use POSIX ":sys_wait_h"; use File::Temp qw(tempfile); use File::Find; use Time::HiRes qw(sleep);
my %n; open(my $f, "<", "/usr/share/common-licenses/GPL-2") or die; while (<$f>) { $n{lc $1}++ while /(\w+)/g } close $f;
my @top = (sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n)[0 .. 4]; print "$_ $n{$_}\n" for @top; $| = 1;
print `echo backticks`; system("sh", "-c", "exit 3"); print $? >> 8, "\n"; open(my $p, "-|", "seq 5") or die; print map { $_ * 2 . "\n" } <$p>; close $p;
open($p, "|-", "tr a-z A-Z") or die; print $p "piped\n"; close $p;
my $pid = fork // die; if (!$pid) { sleep 0.1; exit 4 } print waitpid($pid, 0) == $pid ? $? >> 8 : "?", "\n";
my @kids = map { my $k = fork; exit $_ unless $k; $k } 1 .. 10; my $sum = 0; while ((my $k = wait) > 0) { $sum += $? >> 8 } print "$sum\n";
my $got = 0; $SIG{USR1} = sub { $got++ }; kill USR1 => $$; print "$got\n"; eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; select(undef, undef, undef, 60); }; print $@;
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $a, "pair"; sysread $b, my $buf, 10; print "$buf\n";
my ($t, $name) = tempfile(UNLINK => 1); print $t "x" x 1000; close $t; print -s $name, " ", -e $name ? "there" : "gone", "\n"; my $c = 0; find(sub { $c++ if -f && /GPL/ }, "/usr/share/common-licenses"); print $c > 3 ? "found\n" : "none\n";
my ($r, $w); pipe($r, $w); if (!fork) { close $r; print $w "line $_\n" for 1 .. 1000; exit } close $w; my $l = 0; $l++ while <$r>; wait; print "$l\n"; print join(",", map { sprintf "%03b", $_ } 1 .. 4), "\n"; exec "echo", "exec'd";
