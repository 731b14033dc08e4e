# SPDX-License-Identifier: MIT
"""Reads a public header into its declarations, each with the comment that belongs to it.

Not a C parser: it knows the shapes that the headers of this project have, and no more.
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/)"
    r"|(?P<directive>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)"
    r'|(?P<text>"[^"\n]*"|\w+|\.\.\.|[^\w\s])',
    re.S | re.M,
)
TYPE = re.compile(r"(?:typedef )?(?:struct|union|enum)\b")


@dataclass
class Item:
    """A stretch of code up to its `;` or `,`, or to the end of its braces."""

    line: int
    before: str  # the comment directly before it
    after: str = ""  # the comment that begins on its last line
    end: int = 0
    words: list = field(default_factory=list)
    body: list = None  # the items between its braces

    @property
    def text(self):
        return " ".join(self.words)


@dataclass
class Declaration:
    kind: str  # "function", "handle" (a struct without a body), "type", "macro", "field" or "value"
    name: str
    text: str
    before: str
    after: str
    line: int
    parent: str = ""  # of a field or value: its type
    path: str = ""


def scan(source):
    for match in TOKEN.finditer(source):
        yield match.lastgroup, match.group(), source.count("\n", 0, match.start()) + 1


def comment_text(comment):
    return "\n".join(re.sub(r"^\s*\* ?", "", line) for line in comment[2:-2].split("\n")).strip()


def parse(tokens):
    """The items up to the closing brace or the end."""
    items, item, depth = [], None, 0
    before, before_ends = "", -1

    def begin(line):
        return Item(line, before if before_ends in (line - 1, line) else "")

    for kind, text, line in tokens:
        if kind == "comment":
            last = item or (items[-1] if items and items[-1].end == line else None)
            if last and not last.after:
                last.after = comment_text(text)
            elif not text.startswith("/* ----"):  # a section's title says nothing about what follows
                before, before_ends = comment_text(text), line + text.count("\n")
            continue
        if kind == "directive":
            macro = begin(line)
            macro.words, macro.end = [text], line
            items.append(macro)
            continue
        item = item or begin(line)
        depth += {"(": 1, ")": -1}.get(text, 0)
        item.end = line
        if text == "{":
            item.body = parse(tokens)
        elif text not in "};," or depth:
            item.words.append(text)
        if text in ";,}" and not depth or text == "{" and not TYPE.match(item.text):
            items += [item] if item.words else []
            item = None
        if text == "}":
            break
    return items


def members(item, parent):
    kind = "value" if re.match(r"(typedef )?enum", item.text) else "field"
    for member in item.body:
        text = re.sub(r" CF_SIZE_ .*| \[.*| = .*", "", member.text)
        name = re.search(r"\( \* (\w+)", text) or re.search(r"(\w+)$", text)
        yield Declaration(
            kind, name.group(1), member.text, member.before, member.after, member.line, parent
        )


def declarations(items):
    for item in items:
        what = None
        if item.text.startswith("extern") and item.body is not None:
            yield from declarations(item.body)
        elif macro := re.match(r"\s*#\s*define\s+(\w+)", item.text):
            what = "macro", macro.group(1)
        elif item.text.startswith("typedef"):
            function = re.search(r"(\w+) \(", item.text)
            opaque = item.body is None and item.text.startswith("typedef struct")
            what = ("handle" if opaque else "type"), function.group(1) if function else item.words[-1]
        elif function := re.search(r"(\w+) \(", item.text):
            what = "function", function.group(1)
        if what:
            yield Declaration(*what, item.text, item.before, item.after, item.line)
        if TYPE.match(item.text) and item.body is not None:
            yield from members(item, item.words[-1])


def is_public(declaration):
    """Names that end with an underscore, and include guards, are the header's own affair."""
    guard = declaration.kind == "macro" and declaration.name.endswith("_H")
    return not guard and not declaration.name.endswith("_")


def read(path):
    with open(path, encoding="utf-8") as file:
        public = [d for d in declarations(parse(scan(file.read()))) if is_public(d)]
    for declaration in public:
        declaration.path = path
    return public
