# SPDX-License-Identifier: MIT
"""Medians of the rounds, ratios within a round, and the tables of them.

The speed of a machine drifts by more than the peers differ, so a ratio is taken between two
figures of the same round, and its median over the rounds is shown."""

import re
import statistics
from collections import defaultdict

from workloads import BASE


class Results:
    def __init__(self, part, peers):
        self.part = part
        self.peers = peers
        self.values = defaultdict(dict)  # (label, peer) -> round -> key -> figure
        self.verdicts = {}  # (label, peer) -> why there is none

    def wants(self, workload, peer):
        """What never gave a figure need not be asked twice: a deadlock takes its time."""
        where = (workload.label, peer)
        return (not workload.only or peer in workload.only) and (
            where not in self.verdicts or where in self.values)

    def add(self, workload, peer, number, outcome):
        if isinstance(outcome, str):
            self.verdicts[workload.label, peer] = outcome
        else:
            self.values[workload.label, peer][number] = outcome

    def any_failed(self):
        return "failed" in self.verdicts.values()

    def was_run(self, workload):
        return any((workload.label, peer) in self.values for peer in self.peers)

    def figures(self, workload, peer, key=None):
        rounds = self.values.get((workload.label, peer), {})
        return [values[key or workload.key] for values in rounds.values()]

    def median(self, workload, peer, key=None):
        figures = self.figures(workload, peer, key)
        return statistics.median(figures) if figures else None

    def ratio(self, workload, peer):
        """How many times better cfutures is; None where that says nothing."""
        ours = self.values.get((workload.label, BASE), {})
        theirs = self.values.get((workload.label, peer), {})
        pairs = [(theirs[r][workload.key], ours[r][workload.key]) for r in theirs if r in ours]
        if workload.more_is_better:
            pairs = [(base, other) for other, base in pairs]
        if peer == BASE or not workload.compared or not pairs:
            return None
        if any(min(pair) <= 0 for pair in pairs):
            return None
        return statistics.median(other / base for other, base in pairs)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(results, workload, peer):
    verdict = results.verdicts.get((workload.label, peer))
    median = results.median(workload, peer)
    if verdict == "failed" or median is None:
        return verdict or ""
    ratio = results.ratio(workload, peer)
    text = workload.shown.format(median)
    return text if ratio is None else f"{text} ({ratio:.3g})"


def number(figure):
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def shared_workloads(results):
    """What has no title has a table of its own."""
    return [w for w in results.part.workloads
            if w.title and w.only != (BASE,) and results.was_run(w)]


def overview(results):
    shown = shared_workloads(results)
    rows = [[peer, *(cell(results, w, peer) for w in shown)] for peer in results.peers]
    return table(["peer", *(w.label for w in shown)], rows)


def beside(results, workload, peer):
    """Medians of what a program printed besides the figure that is compared."""
    rounds = results.values[workload.label, peer]
    keys = [key for key in next(iter(rounds.values())) if key != workload.key]
    return ", ".join(f"{key} {number(results.median(workload, peer, key))}" for key in keys)


def row(results, workload, peer):
    figures, ratio = results.figures(workload, peer), results.ratio(workload, peer)
    shown = [workload.shown.format(f(figures)) for f in (statistics.median, min, max)]
    return [peer, *shown, f"{ratio:.3g}" if ratio else "", str(len(figures)),
            beside(results, workload, peer)]


def detail(results, workload):
    measured = [peer for peer in results.peers if (workload.label, peer) in results.values]
    measured.sort(key=lambda peer: results.median(workload, peer), reverse=workload.more_is_better)
    header = ["peer", "median", "lowest", "highest", "ratio", "rounds", "besides"]
    rows = [row(results, workload, peer) for peer in measured]
    return f"### {workload.label}: {workload.title}\n\n{table(header, rows)}"


def markdown(about, results, quick):
    parts = ["# " + results.part.title,
             "\n".join(f"- {name}: {value}" for name, value in about.items()),
             "Medians; in brackets how many times better cfutures is, from figures of the same round.",
             *results.part.tables(results),
             *(detail(results, w) for w in shared_workloads(results))]
    if quick:
        parts.insert(2, "A quick run: good for seeing that all works, not for judging.")
    return "\n\n".join(part for part in parts if part)


def put_into(path, text):
    """The report of a part takes the place of that part's last one in the file; others stay."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = [part for part in re.split(r"^(?=# )", old, flags=re.MULTILINE) if part.strip()]
    title = text.splitlines()[0]
    places = [i for i, part in enumerate(parts) if part.splitlines()[0] == title]
    if places:
        parts[places[0]] = text
    else:
        parts.append(text)
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
