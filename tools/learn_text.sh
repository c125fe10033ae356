#!/usr/bin/env bash
# How far a small mixture of experts gets on an English text in ten minutes on two ranks: trains on nine tenths of
# it and prints the bits per byte of the rest.
#   tools/learn_text.sh TEXT_FILE [MINUTES]
set -euo pipefail
text=${1:?usage: tools/learn_text.sh TEXT_FILE [MINUTES]} minutes=${2:-9.5}
. "$(dirname "$0")/prepare_text.sh"
prepare_text learn_text "$text" runs/learn-text
mpirun --oversubscribe -np 2 cohort train --config examples/learn-text.yaml --set "train.minutes=$minutes"
