#!/usr/bin/env bash
# Builds and runs the tests under sanitizers: address + undefined behaviour, then threads.
#   tools/sanitize.sh [asan|tsan] [ROOM] [ctest arguments]
#   tools/sanitize.sh tsan comm               # one sanitizer, one room: nothing else is built
#   tools/sanitize.sh tsan comm -E 'comm/All/'  # without the proofs of plans, which are most of the time, in one thread
#   tools/sanitize.sh tsan parallel -R parallel/Elastic
# Without a room: all but what does not run our code in the process (architecture/), and the installed package, whose
# consumer is not instrumented (package/).
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(asan tsan)
case "${1:-}" in asan|tsan) presets=("$1"); shift ;; esac
room=
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
  room=$1
  shift
  [ -f "tests/$room/CMakeLists.txt" ] || { echo "sanitize: no room tests/$room"; exit 1; }
fi

tools/setup.sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# Open MPI and its plugins leave memory to the process's end. A library that is preloaded (comm/interposer) comes before
# the sanitizer's, and allocates nothing before that is there.
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# Ranks of tests are processes that leave by _exit: what is found there must end them to be seen.
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tools/tsan.supp"

for preset in "${presets[@]}"; do
  echo "sanitize: $preset"
  cmake --preset "$preset" >/dev/null
  if [ "$preset" = tsan ]; then
    # UCX patches libc to hear of unmapped memory, and takes a lock there that the thread sanitizer watches, in threads
    # that the sanitizer has already forgotten: they crash where they end (openucx/ucx issue 8475).
    export UCX_MEM_EVENTS=n
    # OpenMP's runtime is not instrumented: its threads would be seen to race. Ours are what this is for.
    export OMP_THREAD_LIMIT=1
  fi
  if [ -n "$room" ]; then
    cmake --build --preset "$preset" --target "$room/all" "tests/$room/all"
    ctest --preset "$preset" -j "$(nproc)" -R "^$room/" "$@"
  else
    cmake --build --preset "$preset"
    ctest --preset "$preset" -j "$(nproc)" -E '^(architecture|package)/' "$@"
  fi
done
