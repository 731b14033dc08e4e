#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails unless three lists are one: the functions that the public headers declare, those that the
version script names, and those that the shared library exports.
usage: symbols.py NM LIBRARY VERSION_SCRIPT HEADER...
"""

import re
import subprocess
import sys

import header


def declared(paths):
    return {d.name for path in paths for d in header.read(path) if d.kind == "function"}


def listed(path):
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    names = re.search(r"LIBCFUTURES_0\.1 \{\s*global:(.*?)local:\s*\*;\s*\};", text, re.S)
    return set(re.findall(r"\w+", names.group(1))) if names else set()


def exported(nm, library):
    command = [nm, "--dynamic", "--defined-only", "--format=posix", library]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {line.split()[0] for line in lines if line.split()[1] != "A"}  # A: the version's own name
    return {re.sub("@@?LIBCFUTURES_0.1$", "", name) for name in names}


def main(nm, library, script, *headers):
    lists = {
        "declared in the headers": declared(headers),
        f"listed in {script}": listed(script),
        f"exported by {library}": exported(nm, library),
    }
    union = set().union(*lists.values())
    different = False
    for where, names in lists.items():
        for name in sorted(union - names):
            different = True
            print(f"{name}: not {where}")
    print(", ".join(f"{len(names)} {where}" for where, names in lists.items()))
    return 1 if different or not union else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
