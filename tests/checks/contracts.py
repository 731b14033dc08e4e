#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails where a public header leaves a question open.  usage: contracts.py HEADER...

Everything public has a comment directly before it; fields and values may have it behind them.
A function's comment says from which threads it may be called, and as its signature demands: which
errors it returns, in what unit a time is, and who owns what.
"""

import re
import sys

import header

OWNERSHIP = re.compile(
    r"\b(own|owns|owned|owner|ownership|borrow|borrows|borrowed|copied|references?|caller's"
    r"|releases?|released|yours)\b",
    re.I,
)


def comment_missing(declaration):
    if declaration.kind == "field" and declaration.text.startswith("size_t size CF_SIZE_"):
        return False  # the same in every struct: the head of cfutures.h says it once
    trailing = declaration.kind in ("field", "value") and declaration.after
    return not (declaration.before or trailing)


def left_open(function, handles, errors):
    """What the comment of this function should answer and does not."""
    comment = function.before
    result, _, parameters = function.text.partition(function.name)
    if not re.search(r"^Threads: \w", comment, re.M):
        yield "from which threads (a line `Threads: ...`)"
    if result == "cf_status " and "Errors:" not in comment:
        if not errors & set(re.findall(r"\bCF_\w+", comment)):
            yield "which errors it returns (`Errors:`, or names of cf_status)"
    if "int64_t" in parameters and not re.search(r"\bns\b|nanoseconds", comment):
        yield "the unit of time (ns or nanoseconds)"
    if any(re.search(rf"\b{handle} (const )?\*", function.text) for handle in handles):
        if not OWNERSHIP.search(comment):
            yield "who owns what (owns, borrowed, copied, reference, caller's, released, yours)"


def complaints(declarations):
    handles = [d.name for d in declarations if d.kind == "handle"]
    errors = {d.name for d in declarations if d.parent == "cf_status"} - {"CF_OK"}
    for declaration in declarations:
        if comment_missing(declaration):
            yield declaration, f"this {declaration.kind} has no comment directly before it"
        elif declaration.kind == "function":
            for question in left_open(declaration, handles, errors):
                yield declaration, f"its comment does not say {question}"


def main(paths):
    declarations = [declaration for path in paths for declaration in header.read(path)]
    found = list(complaints(declarations))
    for declaration, complaint in found:
        print(f"{declaration.path}:{declaration.line}: {declaration.name}: {complaint}")
    functions = sum(d.kind == "function" for d in declarations)
    print(f"{functions} functions, {len(declarations)} public names, {len(found)} complaints")
    return 1 if found or not functions else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
