"""The project's own Jinja2 templates; nothing that a user wrote is ever a template's source."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import css_inline
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from newsletter.rendering.code_colours import light_rules
from newsletter.rendering.plain import underline, wrap

_FOLDER = Path(__file__).resolve().parents[2] / "templates" / "emails"


def render(name: str, **values: Any) -> str:
    """Render templates/emails/`name`; values are escaped in .html.j2 and only there."""
    return _environment().get_template(name).render(**values)


def render_block(name: str, block: str, **values: Any) -> str:
    """Render one {% block %} of a template by itself."""
    template = _environment().get_template(name)
    return "".join(template.blocks[block](template.new_context(values)))


def inline(html: str) -> str:
    """Move CSS into style attributes; media queries (dark mode, phones) stay in one <style>."""
    return _inliner().inline(html)


@lru_cache(maxsize=1)
def _inliner() -> css_inline.CSSInliner:
    return css_inline.CSSInliner(
        load_remote_stylesheets=False, keep_at_rules=True, extra_css=light_rules()
    )


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters.update(wrap=wrap, underline=underline)
    return environment
