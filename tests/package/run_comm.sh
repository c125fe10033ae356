#!/usr/bin/env bash
# Installs the communication core alone, and builds and runs projects outside the tree against it: one of C, one of C++,
# each as two ranks that meet in a folder and, where there is mpirun, as two ranks of a job.
#   tests/package/run_comm.sh BUILD_DIR
set -euo pipefail
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --component comm --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }

# comm needs nothing of what the other rooms need: asking for it is an error here.
heavy=(gRPC Protobuf OneDnn OpenMP yaml-cpp nlohmann_json spdlog prometheus-cpp CLI11 GTest)
disabled=("${heavy[@]/#/-DCMAKE_DISABLE_FIND_PACKAGE_}")
disabled=("${disabled[@]/%/=ON}")
for project in comm_c comm_cc; do
  cmake -S "$here/$project" -B "$work/$project" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release \
    --no-warn-unused-cli "${disabled[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  cmake --build "$work/$project" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
done

# pair PROGRAM ARGUMENT...: ranks 0 and 1 of two, with the arguments before their numbers.
pair() {
  "$@" 1 2 &
  local other=$!
  "$@" 0 2
  wait "$other"
}
mkdir "$work/board"
pair timeout 60 "$work/comm_c/embeds_c" "$work/meet_c"
pair timeout 60 "$work/comm_c/embeds_c" board "$work/board"
pair timeout 60 "$work/comm_cc/embeds_cc" "$work/meet_cc"
if command -v mpirun >/dev/null && grep -q COHORT_HAVE_MPI "$work"/prefix/lib*/cmake/cohort/cohort-comm-targets.cmake \
    "$work"/prefix/lib/*/cmake/cohort/cohort-comm-targets.cmake 2>/dev/null; then
  for program in comm_c/embeds_c comm_cc/embeds_cc; do
    timeout 60 mpirun --allow-run-as-root --oversubscribe -np 2 "$work/$program"
  done
fi
# The shared libraries show their interface and nothing else.
for library in $(find "$work/prefix" -name 'libcohort_*.so'); do
  others=$(nm -D --defined-only "$library" | awk '{print $3}' | grep -Ev '^(cohort_|MPI_)' || true)
  [ -z "$others" ] || { echo "$library shows $others"; exit 1; }
done
