#!/usr/bin/env python3
"""Fails when a README names a path, a `cohort` subcommand or one of its flags that does not exist, or holds a placeholder.

usage: check_docs.py ROOT [COHORT_BINARY]

Paths: every `backticked` word and every word of a code block that begins with a top-level folder of the project, or
that ends in a source suffix (then it must exist beside the README, below its folder, or at the root).
Placeholders: no line may hold `@@`, the mark of what was to be filled in before publishing.
Commands: every line of a code block (or backticked text) that runs `cohort SUBCOMMAND ... --flag`; the flags must be
in what `cohort SUBCOMMAND --help` prints.
"""
import functools
import itertools
import pathlib
import re
import shlex
import subprocess
import sys

SUFFIXES = (".h", ".cc", ".proto", ".py", ".sh", ".yaml", ".md", ".cmake", ".txt")
GENERATED = ("build",)  # named in documents, made by running them


def expand(word):
    """a/{b,c}.d -> a/b.d a/c.d"""
    match = re.search(r"\{([^{}]*)\}", word)
    if not match:
        return [word]
    return list(itertools.chain.from_iterable(
        expand(word[:match.start()] + part + word[match.end():]) for part in match[1].split(",")))


def words(text):
    """(line number, word) of backticked text and of code blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        parts = [line.split(" # ")[0]] if fenced else re.findall(r"`([^`]+)`", line)
        for part in parts:
            yield number, part, fenced


def exists(root, folder, path):
    if any(glob in path for glob in "*?"):
        return any(root.glob(path)) or any(folder.glob(path))
    return (root / path).exists() or (folder / path).exists()


def check_path(root, folder, tops, word):
    word = word.strip("\"'(),;:").rstrip("/")
    if not word or re.search(r"[<>$=|&@]|\.\.\.|^-|^/|://", word) or not re.fullmatch(r"[\w./{},*?+-]+", word):
        return []
    missing = []
    for path in expand(word):
        first = path.removeprefix("./").split("/")[0]
        if first in GENERATED:
            continue
        if "/" in path and first in tops:
            if not exists(root, folder, path.removeprefix("./")):
                missing.append(path)
        elif path.endswith(SUFFIXES) and "/" not in path and not path.startswith("*"):
            if not (root / path).exists() and not any(folder.rglob(path)) and path not in GENERATED_FILES:
                missing.append(path)
    return missing


# Files that Cohort or the ecosystem writes; documents speak of them by name.
GENERATED_FILES = {"CMakeLists.txt", "config.yaml"}


@functools.cache
def help_of(binary, subcommand):
    run = subprocess.run([binary, *subcommand, "--help"], capture_output=True, text=True, timeout=60)
    return run.stdout if run.returncode == 0 else None


def check_command(binary, line):
    """Problems of the `cohort ...` invocation in this line, if there is one."""
    try:
        tokens = shlex.split(line, comments=True)
    except ValueError:
        return []
    starts = [i for i, t in enumerate(tokens) if t == "cohort" or t.endswith("/cohort")]
    if not starts or not binary:
        return []
    tokens = tokens[starts[-1] + 1:]
    subcommand, rest = [], list(tokens)
    while rest and re.fullmatch(r"[a-z][a-z-]*(\|[a-z|-]+)?", rest[0]) and len(subcommand) < 2:
        if help_of(binary, tuple(subcommand + [rest[0].split("|")[0]])) is None:
            break
        subcommand.append(rest.pop(0).split("|")[0])
    if tokens and not subcommand and re.match(r"[a-z]", tokens[0]):
        return [f"no subcommand: cohort {tokens[0]}"]
    text = help_of(binary, tuple(subcommand))
    flags = [re.match(r"--[\w-]+", t)[0] for t in rest if re.match(r"\[?--\w", t) for t in [t.lstrip("[")]]
    return [f"cohort {' '.join(subcommand)} has no flag {flag}" for flag in flags
            if not re.search(re.escape(flag) + r"(?![\w-])", text or "")]


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    binary = sys.argv[2] if len(sys.argv) > 2 else None
    tops = {p.name for p in root.iterdir() if p.is_dir() and p.name not in (".git", "build", "runs")}
    listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "*.md"], capture_output=True,
                            text=True)
    files = [root / name for name in listed.stdout.split()] if listed.returncode == 0 else list(root.rglob("*.md"))
    problems, count = [], 0
    for file in sorted(f for f in files if f.exists()):
        text = file.read_text()
        problems += [f"{file.relative_to(root)}:{number}: unfilled placeholder: {line.strip()}"
                     for number, line in enumerate(text.splitlines(), 1) if "@@" in line]
        for number, part, fenced in words(text):
            place = f"{file.relative_to(root)}:{number}"
            for word in part.split():
                count += 1
                problems += [f"{place}: no such path: {path}" for path in check_path(root, file.parent, tops, word)]
            problems += [f"{place}: {problem}" for problem in check_command(binary, part)]
    print("\n".join(problems) if problems else f"{len(files)} documents, {count} words: all that they name exists")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
