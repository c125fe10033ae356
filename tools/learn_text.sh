#!/usr/bin/env bash
# How far a small mixture of experts gets on an English text in ten minutes on two ranks: trains on nine tenths of
# it and prints the bits per byte of the rest.
#   tools/learn_text.sh TEXT_FILE [MINUTES]
set -euo pipefail
text=$(realpath "${1:?usage: tools/learn_text.sh TEXT_FILE [MINUTES]}")
minutes=${2:-9.5}
cd "$(dirname "$0")/.."
export PATH="$PWD/build/release/tools:$PATH" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
command -v cohort >/dev/null || {
  echo "learn_text: build/release/tools/cohort is not built; run" >&2
  echo "  tools/setup.sh && cmake --preset release && cmake --build --preset release --target cohort" >&2
  exit 1
}
run=runs/learn-text
rm -rf "$run"
cohort data tokenizer --input "$text" --vocab-size 1024 --output "$run/tokenizer"
cohort data prepare --input "$text" --tokenizer "$run/tokenizer/tokenizer.json" --validation-fraction 0.1 --output "$run/data"
mpirun --oversubscribe -np 2 cohort train --config examples/learn-text.yaml --set "train.minutes=$minutes"
