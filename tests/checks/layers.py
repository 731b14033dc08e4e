#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails where a file in src/ includes what stands above or beside it, or names what only src/base may.
usage: layers.py SRC
"""

import pathlib
import re
import sys

# Each folder, and those that it may include from besides itself.
BELOW = {
    "base": set(),
    "core": {"base"},
    "threads": {"base", "core"},
    "wire": {"base", "core"},
    "processes": {"base", "core", "wire"},
}
MACHINE = re.compile(
    r"\b(pthread_\w+|PTHREAD_\w+|atomic_\w+|memory_order_\w+|__(?:atomic|sync)_\w+"
    r"|(?:SYS|__NR)_futex\w*|FUTEX_\w+)\b|<(?:pthread|stdatomic|linux/futex|threads)\.h>"
)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def folder_of(included, file, src):
    """The folder in src/ that #include "..." leads to; None: a public header, or no such file."""
    for start in (file.parent, src):
        target = (start / included).resolve()
        if target.is_file() and src in target.parents:
            return target.relative_to(src).parts[0]
    return None


def complaints(file, src):
    folder = file.relative_to(src).parts[0]
    if folder not in BELOW:
        yield 1, f"no layer is called {folder}"
        return
    code = COMMENT.sub(lambda match: "\n" * match.group().count("\n"), file.read_text("utf-8"))
    for number, line in enumerate(code.split("\n"), 1):
        include = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        target = include and folder_of(include.group(1), file, src)
        if include and target is None:
            yield number, f"{include.group(1)} is not in src/ (public headers are included with <>)"
        elif target and target != folder and target not in BELOW[folder]:
            yield number, f"{folder} may not include {include.group(1)}"
        machine = MACHINE.search(line)
        if machine and folder != "base":
            yield number, f"only base names {machine.group()}"


def main(src):
    src = pathlib.Path(src).resolve()
    files = sorted(file for file in src.glob("*/**/*") if file.suffix in (".c", ".h"))
    found = [(file, *complaint) for file in files for complaint in complaints(file, src)]
    for file, line, complaint in found:
        print(f"src/{file.relative_to(src)}:{line}: {complaint}")
    print(f"{len(files)} files, {len(found)} complaints")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
