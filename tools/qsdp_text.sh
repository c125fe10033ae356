#!/usr/bin/env bash
# What quantized sharding costs in quality: trains one model twice on an English text, from the same seed and on the
# same batches, with zero-3 and with another sharding, and prints both held-out losses and their ratio.
#   tools/qsdp_text.sh TEXT_FILE [SHARDING] [RANKS] [STEPS]
set -euo pipefail
usage="usage: tools/qsdp_text.sh TEXT_FILE [SHARDING] [RANKS] [STEPS]"
text=${1:?$usage} sharding=${2:-qsdp} ranks=${3:-4} steps=${4:-1000} run=runs/qsdp-text
. "$(dirname "$0")/prepare_text.sh"
prepare_text qsdp_text "$text" "$run"
held_out_loss() {  # SHARDING: the loss after the last step
  mpirun --oversubscribe -np "$ranks" cohort train --config examples/qsdp-text.yaml \
    --set "parallel.sharding=$1" --set "train.steps=$steps" --set "output=$run/$1" >"$run/$1.log" 2>&1 ||
    { cat "$run/$1.log" >&2; return 1; }
  python3 -c 'import json, sys; print([row["eval_loss"] for row in map(json.loads, open(sys.argv[1])) if "eval_loss" in row][-1])' \
    "$run/$1/metrics.jsonl"
}
exact=$(held_out_loss zero-3)
encoded=$(held_out_loss "$sharding")
python3 -c '
import sys
exact, encoded = float(sys.argv[1]), float(sys.argv[2])
print(f"held-out loss after {sys.argv[4]} steps on {sys.argv[5]} ranks: zero-3 {exact:.4f}, "
      f"{sys.argv[3]} {encoded:.4f} nats a token; ratio {encoded / exact:.4f}")' "$exact" "$encoded" "$sharding" "$steps" "$ranks"
