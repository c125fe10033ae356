#!/usr/bin/env bash
# Sets up, builds and runs every test. Can be run again and again.
#   tools/test.sh [ctest arguments, e.g. -R comm/]
# Tests on real weights and published tokenizer cases read the folder COHORT_TEST_DATA and skip where it is unset.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

tools/setup.sh

echo "test: configuring and building in build/release (the first time takes some minutes)"
log=build/release/configure.log
mkdir -p build/release
cmake --preset release >"$log" 2>&1 || { cat "$log"; exit 1; }
cmake --build --preset release

# Open MPI refuses to run as root, and on fewer cores than ranks, unless told.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export PATH="$root/build/release/tools:$PATH"

if [ -z "${COHORT_TEST_DATA:-}" ]; then
  echo "test: COHORT_TEST_DATA is unset, so tests that need published models and tokenizers will skip"
fi
ctest --preset release -j "$(nproc)" --timeout 600 "$@"
