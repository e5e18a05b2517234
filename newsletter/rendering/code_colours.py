"""The colours of code, light and dark, as rules for the classes that Pygments sets."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from typing import Any

from pygments.formatters import HtmlFormatter

# Both keep WCAG AA's contrast on the backgrounds that issue.css gives to code.
_LIGHT, _DARK = "default", "github-dark"
_DARK_TEXT = "#e6edf3"
_COLOUR = re.compile(r"(?<!-)color: (#[0-9A-Fa-f]{3,6})")
_CLASS = re.compile(r'<span class="([\w ]+)"')


def code_css() -> str:
    """Return the style sheet that colours code on a page, light and dark, for a static file."""
    dark = "\n".join(_rules(_DARK))
    light = "\n".join(_rules(_LIGHT))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{_everything('')}\n{dark}\n}}\n"


def light_rules() -> str:
    """Return the rules that are inlined into a mail."""
    return "\n".join(_rules(_LIGHT))


def dark_rules(html: str) -> str:
    """Return the rules that override the inlined colours in the dark, for the classes in `html`.

    Only those, because Gmail drops a whole <style> element of more than 8 or 16 kB.
    """
    used = {name for names in _CLASS.findall(html) for name in names.split()}
    if not used:
        return ""
    return "\n".join([_everything("!important"), *_rules(_DARK, frozenset(used), "!important")])


def _everything(important: str) -> str:
    return f"pre.highlight span{{color:{_DARK_TEXT}{important}}}"


@lru_cache(maxsize=64)
def _rules(style: str, used: frozenset[str] | None = None, important: str = "") -> list[str]:
    """Write one rule for each colour, with the classes that have it."""
    classes: dict[str, list[str]] = defaultdict(list)
    formatter: Any = HtmlFormatter(style=style)
    for name, (declarations, _, _) in formatter.class2style.items():
        colour = _COLOUR.search(declarations)
        if colour and (used is None or name in used):
            classes[colour[1].lower()].append(f"pre.highlight .{name}")
    return [f"{','.join(names)}{{color:{colour}{important}}}" for colour, names in classes.items()]
