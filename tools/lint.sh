#!/usr/bin/env bash
# clang-format and clang-tidy over the project's own sources.
#   tools/lint.sh                every source
#   tools/lint.sh --format-only  clang-format alone (a test runs this)
#   tools/lint.sh --since REV    clang-tidy on what changed since REV alone
set -euo pipefail
cd "$(dirname "$0")/.."

mode=all
since=""
case "${1:-}" in
  --format-only) mode=format ;;
  --since) mode=all; since=${2:?--since needs a revision} ;;
  "") ;;
  *) sed -n '2,5p' "$0"; exit 2 ;;
esac

mapfile -t sources < <(git ls-files -- '*.h' '*.cc' '*.c' | while read -r f; do [ -f "$f" ] && echo "$f"; done)
if ! clang-format --dry-run -Werror "${sources[@]}" 2>/tmp/cohort-format.$$; then
  head -n 20 /tmp/cohort-format.$$
  rm -f /tmp/cohort-format.$$
  echo "format: run clang-format -i on the files above" >&2
  exit 1
fi
rm -f /tmp/cohort-format.$$
echo "format: ${#sources[@]} files are clean"
[ "$mode" = format ] && exit 0

build=build/release
[ -f "$build/compile_commands.json" ] || cmake --preset release >/dev/null
if [ -n "$since" ]; then
  mapfile -t units < <(git diff --name-only --diff-filter=d "$since" -- '*.cc')
else
  mapfile -t units < <(git ls-files -- '*.cc')
fi
printf '%s\n' "${units[@]}" | xargs -r -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet
echo "tidy: ${#units[@]} files are clean"
