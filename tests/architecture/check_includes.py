#!/usr/bin/env python3
"""Fails when a folder includes from one to its right: proto <- comm <- runtime <- moe <- parallel <- serving <- tools."""
import pathlib
import re
import sys

ROOMS = ["proto", "comm", "runtime", "moe", "parallel", "serving", "tools"]
SOURCES = {".h", ".cc", ".c", ".cu", ".cuh", ".hpp", ".cpp", ".proto"}
INCLUDE = re.compile(r'^\s*(?:#\s*include\s*["<](?:cohort/)?|import\s+")(?P<room>\w+)/')


def violations(root):
    for position, room in enumerate(ROOMS):
        for path in sorted((root / room).rglob("*")):
            if path.suffix not in SOURCES or not path.is_file():
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                if match and match["room"] in ROOMS[position + 1:]:
                    yield f"{path.relative_to(root)}:{number}: {room}/ includes from {match['room']}/, to its right"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    found = list(violations(root))
    print("\n".join(found) if found else f"includes follow the arrows in {len(ROOMS)} rooms")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
