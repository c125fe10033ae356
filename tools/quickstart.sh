#!/usr/bin/env bash
# From nothing to a served model: installs what is needed, builds, prepares a real text corpus, trains a
# mixture-of-experts model on two ranks, serves it, and prints a completion streamed back over gRPC.
# Everything it makes lies in build/release and runs/quickstart. Can be run again and again.
#   tools/quickstart.sh [PROMPT]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
prompt=${1:-"The secret of happiness is"}
run=runs/quickstart
started=$SECONDS
server=""
cleanup() { [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true; }
trap cleanup EXIT
trap 'exit 130' INT TERM
say() { printf '\n\033[1m[%d/6] %s\033[0m\n' "$1" "$2"; }

say 1 "Installing packages (tools/setup.sh)"
tools/setup.sh

say 2 "Building the cohort command into build/release (some minutes the first time)"
mkdir -p build/release
cmake --preset release >build/release/configure.log 2>&1 || { cat build/release/configure.log; exit 1; }
cmake --build --preset release --target cohort
export PATH="$root/build/release/tools:$PATH"

say 3 "Preparing the corpus: Debian's fortunes, as tokens in $run/data"
mkdir -p "$run"
fortunes=(/usr/share/games/fortunes)
find "${fortunes[@]}" -type f ! -name '*.dat' ! -name '*.u8' | sort >"$run/corpus.txt"
mapfile -t corpus <"$run/corpus.txt"
if [ ! -f "$run/tokenizer/tokenizer.json" ]; then
  cohort data tokenizer --input "${corpus[@]}" --separator % --invalid-utf8 replace --vocab-size 2048 --output "$run/tokenizer"
fi
if [ ! -d "$run/data" ]; then
  cohort data prepare --input "${corpus[@]}" --separator % --invalid-utf8 replace \
    --tokenizer "$run/tokenizer/tokenizer.json" --validation-fraction 0.05 --output "$run/data"
fi

say 4 "Training a mixture of experts on two ranks (examples/quickstart.yaml; about three minutes)"
# Open MPI refuses to run as root, and on fewer cores than ranks, unless told.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
rm -rf "$run/model"  # of an earlier quickstart
mpirun --oversubscribe -np 2 cohort train --config examples/quickstart.yaml

say 5 "Serving it (cohort serve; its log is $run/serve.log)"
rm -f "$run/serve.address"
cohort serve --model "$run/model/checkpoints/latest" --listen 127.0.0.1:0 --address-file "$run/serve.address" >"$run/serve.log" 2>&1 &
server=$!
for _ in $(seq 300); do
  [ -s "$run/serve.address" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$run/serve.log"; exit 1; }
  sleep 0.1
done
[ -s "$run/serve.address" ] || {
  echo "quickstart: the server gave no address within 30 seconds; its log, $run/serve.log:" >&2
  cat "$run/serve.log" >&2
  exit 1
}
address=$(cat "$run/serve.address")
echo "listening on $address"

say 6 "A completion, streamed over gRPC from $address"
cohort generate --server "$address" --prompt "$prompt" --echo --max-tokens 80 --temperature 0.7 --seed 1

cat <<DONE

Done in $((SECONDS - started)) seconds. What is where:
  $run/data                  the corpus as tokens, and its tokenizer
  $run/model/checkpoints     Hugging Face folders; latest is the newest
  $run/model/metrics.jsonl   one object a step; tensorboard files beside it
Try it yourself:
  build/release/tools/cohort generate --model $run/model/checkpoints/latest --prompt "Never trust"
  build/release/tools/cohort serve --model $run/model/checkpoints/latest --listen 127.0.0.1:50051
DONE
