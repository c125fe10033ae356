#!/usr/bin/env bash
# An MPI program that knows nothing of Cohort, with and without libcohort_mpi.so: the same output, whatever is taken over.
#   tests/comm/interposer/run.sh MPIEXEC LIBRARY PROGRAM
set -euo pipefail
mpiexec=$1 library=$2 program=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names="allreduce reduce reduce_scatter reduce_scatter_block allgather allgatherv gather scatter alltoall alltoallv bcast barrier"
all=$(printf '%s=0,' $names)

# job RANKS OUTPUT OPTION...: lines sorted, because ranks of different groups print at once.
job() {
  local ranks=$1 output=$2
  shift 2
  timeout 100 "$mpiexec" --allow-run-as-root --oversubscribe -np "$ranks" "$@" "$program" >"$work/raw" 2>"$output.err" ||
    { echo "the program failed: $*"; cat "$output.err"; exit 1; }
  sort "$work/raw" >"$output"
}

# same RANKS WHAT
same() { diff "$work/plain.$1" "$work/ours" >"$work/diff" || { echo "$1 ranks, $2:"; head -20 "$work/diff"; exit 1; }; }

for ranks in 2 4; do
  job $ranks "$work/plain.$ranks"
  job $ranks "$work/ours" -x LD_PRELOAD="$library" -x COHORT_MPI_VERBOSE=1
  same $ranks "the sizes of the table"
  grep -q 'allreduce [1-9]' "$work/ours.err" || { echo "nothing was taken over"; cat "$work/ours.err"; exit 1; }

  job $ranks "$work/ours" -x LD_PRELOAD="$library" -x COHORT_MPI_VERBOSE=1 -x COHORT_MPI_OPS="$all"
  same $ranks "everything"
  for name in $names; do
    grep -q " $name [1-9]" "$work/ours.err" || { echo "$name was not taken over"; cat "$work/ours.err"; exit 1; }
  done
done
job 2 "$work/ours" -x LD_PRELOAD="$library" -x COHORT_MPI_VERBOSE=1 -x COHORT_MPI=off
same 2 "switched off"
[ ! -s "$work/ours.err" ] || { echo "switched off, and not silent:"; cat "$work/ours.err"; exit 1; }
job 2 "$work/ours" -x LD_PRELOAD="$library" -x COHORT_MPI_OPS=allreduze
same 2 "an unknown name"
grep -q "allreduze.*allreduce" "$work/ours.err" || { echo "an unknown name is not reported"; exit 1; }
