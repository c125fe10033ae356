#!/usr/bin/env bash
# Builds and runs the tests under sanitizers: address + undefined behaviour, then threads.
#   tools/sanitize.sh [asan|tsan] [ctest arguments]
# Left out: what does not run our code in the process (architecture/), and the installed package, whose consumer is
# not instrumented (package/).
# The thread sanitizer runs the rooms whose threads are ours (comm, serving): OpenMP's runtime is not instrumented.
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(asan tsan)
case "${1:-}" in asan|tsan) presets=("$1"); shift ;; esac

tools/setup.sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# Open MPI and its plugins leave memory to the process's end.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# Ranks of tests are processes that leave by _exit: what is found there must end them to be seen.
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

for preset in "${presets[@]}"; do
  echo "sanitize: $preset"
  cmake --preset "$preset" >/dev/null
  if [ "$preset" = tsan ]; then
    cmake --build --preset tsan --target test_comm test_serving
    ctest --preset tsan -j "$(nproc)" -R '^(comm|serving)/' "$@"
  else
    cmake --build --preset asan
    ctest --preset asan -j "$(nproc)" -E '^(architecture|package)/' "$@"
  fi
done
