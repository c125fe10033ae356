# shellcheck shell=bash
# Sourced by the scripts that train on one text: prepares it once, in tokens of a tokenizer of its own.
#   prepare_text SCRIPT TEXT_FILE RUN: makes the folder RUN afresh, with RUN/tokenizer and RUN/data; leaves the shell in
#   the repository, with `cohort` on its PATH.
prepare_text() {
  local script=$1 text
  text=$(realpath "$2")
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  export PATH="$PWD/build/release/tools:$PATH" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  command -v cohort >/dev/null || {
    echo "$script: build/release/tools/cohort is not built; run" >&2
    echo "  tools/setup.sh && cmake --preset release && cmake --build --preset release --target cohort" >&2
    exit 1
  }
  rm -rf "$3"
  cohort data tokenizer --input "$text" --vocab-size 1024 --output "$3/tokenizer"
  cohort data prepare --input "$text" --tokenizer "$3/tokenizer/tokenizer.json" --validation-fraction 0.1 --output "$3/data"
}
