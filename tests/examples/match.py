# SPDX-License-Identifier: MIT
"""Compares the output of a program with a file of patterns, one for each line of output.

    text        this very line
    ~regex      a line that this regular expression matches as a whole
    ?unordered  from here to ?end the lines may come in any order, except that
    +pattern    (a text or a ~regex) comes after the line of the pattern above it
    ?end

usage: match.py EXPECTED OUTPUT; the status is 0 if they agree, 1 if not.
"""

import re
import sys


def matches(pattern, line):
    if pattern.startswith("~"):
        return re.fullmatch(pattern[1:], line) is not None
    return pattern == line


def read_sections(path):
    """The patterns in groups: one pattern alone, or a list whose lines may come in any order."""
    sections = []
    group = None
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line == "?unordered" and group is None:
                group = []
            elif line == "?end" and group is not None:
                sections.append(group)
                group = None
            elif line.startswith("?"):
                sys.exit(f"{path}: unexpected {line}")
            elif group is not None:
                group.append(line)
            else:
                sections.append([line])
    if group is not None:
        sys.exit(f"{path}: ?unordered without ?end")
    return sections


def find_order(patterns, lines):
    """Gives each pattern a line of its own; returns how many patterns, in turn, could have one."""
    farthest = 0

    def place(index, used, last):
        nonlocal farthest
        farthest = max(farthest, index)
        if index == len(patterns):
            return True
        pattern = patterns[index]
        after = -1
        if pattern.startswith("+"):
            pattern, after = pattern[1:], last
        return any(
            number not in used and number > after and matches(pattern, line)
            and place(index + 1, used | {number}, number)
            for number, line in enumerate(lines)
        )

    place(0, frozenset(), -1)
    return farthest


def compare(sections, lines):
    """None, or what is wrong: the message and the number of the first line it is about."""
    at = 0
    for patterns in sections:
        part = lines[at:at + len(patterns)]
        found = find_order(patterns, part)
        if found < len(patterns):
            where = "" if len(patterns) == 1 else f" among the next {len(patterns)} lines"
            return f"expected{where}: {patterns[found]}", at
        at += len(patterns)
    if at < len(lines):
        return "expected the end of the output", at
    return None


def main():
    expected, output = sys.argv[1:]
    with open(output, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    wrong = compare(read_sections(expected), lines)
    if wrong is None:
        return 0
    message, at = wrong
    print(f"{expected}: the output differs at line {at + 1}")
    print(f"  {message}")
    print("  the output was (> marks where it differs):")
    for number, line in enumerate(lines + ["(end)"]):
        print(f"  {'>' if number == at else ' '} {number + 1:3} | {line}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
