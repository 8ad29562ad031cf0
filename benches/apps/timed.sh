# Runs one load of this directory: `sh timed.sh LOAD prepare|work`, in the directory it may fill.
# `work` prints the nanoseconds that its work took, without the start of a sandbox. What the load itself
# prints is shown only when it fails.
prepare() { :; }
. "$1"
case $2 in
prepare) prepare ;;
work)
  begin=$(date +%s%N)
  work >out || { cat out >&2; exit 1; }
  end=$(date +%s%N)
  echo $((end - begin)) ;;
esac
