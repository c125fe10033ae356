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

git rev-parse --is-inside-work-tree >/dev/null 2>&1 || {
  echo "lint: this is not a git checkout, and the files to check are those that git lists" >&2
  exit 2
}
mapfile -t sources < <(git ls-files -- '*.h' '*.cc' '*.c' '*.cu' '*.cuh' | while read -r f; do [ -f "$f" ] && echo "$f"; done)
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if ! clang-format --dry-run -Werror "${sources[@]}" 2>"$report"; then
  head -n 20 "$report"
  echo "format: run clang-format -i on the files above" >&2
  exit 1
fi
echo "format: ${#sources[@]} files are clean"
[ "$mode" = format ] && exit 0

build=build/release
[ -f "$build/compile_commands.json" ] || cmake --preset release >/dev/null
compiled=('*.cc' ':!tests/package/consumer')  # that is a project of its own, not in compile_commands.json
if [ -n "$since" ]; then
  mapfile -t units < <(git diff --name-only --diff-filter=d "$since" -- "${compiled[@]}")
else
  mapfile -t units < <(git ls-files -- "${compiled[@]}")
fi
# The build names GCC's warnings, which clang does not know, and clang-tidy counts on its standard error the warnings in
# system headers, which nobody asked for.
printf '%s\n' "${units[@]}" | xargs -r -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet \
  --extra-arg=-Wno-unknown-warning-option \
  2> >(grep -v -E '^[0-9]+ warnings? generated\.$' >&2)
echo "tidy: ${#units[@]} files are clean"
