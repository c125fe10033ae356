#!/usr/bin/env python3
"""check_files.py ROOT: nothing large and no package is tracked. Sources are small; data comes from COHORT_TEST_DATA."""
import pathlib
import subprocess
import sys

MOST_BYTES = 512 << 10
PACKAGES = {".whl", ".gz", ".zip", ".deb", ".so", ".a", ".o"}

root = pathlib.Path(sys.argv[1])
names = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
wrong = []
for name in filter(None, names.split("\0")):
    path = root / name
    if path.suffix in PACKAGES:
        wrong.append(f"{name}: a package or a build's output")
    elif path.is_file() and path.stat().st_size > MOST_BYTES:
        wrong.append(f"{name}: {path.stat().st_size >> 10} KiB, {MOST_BYTES >> 10} at most")
if wrong:
    sys.exit("tracked, and should not be:\n  " + "\n  ".join(wrong))
