"""What a query of Prometheus names: enough of its language to look for metrics and labels."""

import re

WORDS = {"and", "or", "unless", "bool"}
GROUPING = r" ?\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)"


def bare(query: str) -> str:
    """Return a query without texts, ranges and offsets."""
    return re.sub(r"\[[^]]*\]|\boffset \w+", "", re.sub(r'"[^"]*"', '""', query))


def series(query: str) -> dict[str, set[str]]:
    """Return the names of metrics in a query, with the labels that each is chosen by."""
    ungrouped = re.sub(GROUPING, "", bare(query))
    found: dict[str, set[str]] = {}
    # A name ends where no further letter and no bracket of a function's arguments follows.
    for name, matchers in re.findall(r"([a-z_:][\w:]*)(?![\w:]| ?\()(?:{([^}]*)})?", ungrouped):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+) ?[=!]", matchers))
    return found


def groups(query: str) -> set[str]:
    """Return the labels that a query sums by, matches on or leaves out."""
    return {
        label for inner in re.findall(GROUPING, bare(query)) for label in re.findall(r"\w+", inner)
    }
