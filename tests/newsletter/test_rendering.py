"""A document as a mail, a post and a page: what readers see, and what never gets through."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.staticfiles import finders
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.phrases import phrases
from newsletter.rendering import (
    SPACED_NAME,
    UNSUBSCRIBE_URL,
    Document,
    PodcastSlot,
    Rendered,
    RenderingError,
    Slots,
    code_css,
    problems,
    render_email,
    render_fragment,
    render_post,
    warnings,
)
from newsletter.rendering.placeholders import without

DOCUMENT = Document(
    newsletter_slug="weekly",
    newsletter_name="The Weekly",
    language="en",
    sender_name="Ana & Co",
    postal_address="1 Example Street\n12345 Town",
    slug="spring",
    title="Spring <is> here",
    date=datetime.date(2026, 6, 3),
    summary="What is new",
    author="Ana",
    tags=("news",),
    markdown="Hello.",
)
EPISODE = PodcastSlot("Episode 12", "https://pod.example.org/12?a=1&b=2", 1925)
SLOTS = Slots(EPISODE, "https://blog.example.org/spring/")
BARE = Slots(None, "https://blog.example.org/spring/")
# Headings, a nested list, comments and a table, as real newsletters have them.
REAL = """## Events

<!-- Dear contributors: * [Title](https://example.com/) -->

### Virtual
* 2026-06-04 | Virtual (Berlin) | [Rust Berlin](https://www.example.org/rust-berlin)
    * [**Hack and Learn**](https://www.example.org/events/1/)
* [video] [Generics](https://www.example.org/v)

Read [the post](https://a.example.org/post) by [Bo](https://b.example.org/), then reply.

| what ❌ <br /> (primary) | mean |
|:------------------------:|------|
| All | -0.8% |

<small>[Discuss](https://www.example.org/discuss)</small>
"""

# What Markdown and HTML are made of, to be put together at random.
SHARDS = [
    "<div>", "</p>", "<b>", "* ", "\n", "|", "[x](", "![", "`", "> ", "<!--", "&#1;", "{{ name",
    "}}", "<td>", "[^1]", "  ", "# ", "a",
]  # fmt: skip


def document(markdown: str = "Hello.", **changes: Any) -> Document:
    return dataclasses.replace(DOCUMENT, markdown=markdown, **changes)


def mail(markdown: str, slots: Slots = BARE, **changes: Any) -> Rendered:
    return render_email(document(markdown, **changes), slots)


def fragment(markdown: str) -> str:
    return render_fragment(document(markdown), BARE)


def body_text(markdown: str) -> str:
    text = mail(markdown).text.partition(f"{BARE.web_url}\n\n")[2]
    return without(text.partition("\n\n---------")[0])


def test_it_keeps_a_document_through_json() -> None:
    stored = json.loads(json.dumps({**DOCUMENT.to_json(), "later": 1}))
    assert Document.from_json(stored) == DOCUMENT


def test_it_refuses_stored_documents_that_lack_something() -> None:
    stored = DOCUMENT.to_json()
    del stored["title"], stored["slug"]
    with pytest.raises(RenderingError, match="lacks slug, title"):
        Document.from_json(stored)


def test_it_puts_everything_that_a_mail_owes_into_both_parts() -> None:
    rendered = mail("Hello.", SLOTS)
    assert rendered.subject == "Spring <is> here"
    for part in (rendered.html, rendered.text):
        for words in ("The Weekly", "3 June 2026", "by Ana", "Listen to the episode", "Episode 12",
                      "32 min", "Hello.", "1 Example Street", "12345 Town", UNSUBSCRIBE_URL,
                      SLOTS.web_url):  # fmt: skip
            assert words in part


def test_it_escapes_in_html_and_not_in_text() -> None:
    rendered = mail("Hello.")
    assert "Spring &lt;is&gt; here" in rendered.html
    assert "Ana &amp; Co" in rendered.html
    assert "Spring <is> here\n================\n" in rendered.text
    assert "Ana & Co" in rendered.text


def test_it_leaves_the_unsubscribe_placeholder_in_one_link() -> None:
    assert mail("Hello.").html.count(f'href="{UNSUBSCRIBE_URL}"') == 1


def test_it_speaks_the_newsletter_s_language() -> None:
    rendered = mail("Olá.", SLOTS, language="pt-BR")
    assert 'lang="pt-BR" dir="ltr"' in rendered.html
    assert "3 de junho de 2026" in rendered.html
    assert "Cancelar inscrição" in rendered.text


def test_it_writes_from_right_to_left_where_that_is_read() -> None:
    assert 'lang="ar" dir="rtl"' in mail("Hello.", language="ar").html


def test_it_keeps_the_rules_for_dark_mode_and_phones_and_inlines_the_rest() -> None:
    html = mail("Hello.").html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media (max-width: 480px)" in html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert re.search(r'<h1 class="title" style="[^"]*font-size: 28px', html)
    assert ".title { margin" not in html


def test_it_sends_few_enough_rules_that_gmail_keeps_them() -> None:
    style = re.search(r"<style>(.*?)</style>", mail("```python\nx = 1\n```").html, re.DOTALL)
    assert style
    assert len(style[1]) < 8_000


def test_it_hides_the_summary_before_the_mail_as_its_preview() -> None:
    html = mail("Hello.").html
    assert re.search(r'<div class="preheader" style="[^"]*display: none[^"]*">What is new', html)
    assert 'class="preheader"' not in mail("Hello.", summary="").html


def test_it_makes_a_name_a_placeholder_with_its_fallback() -> None:
    rendered = mail("Dear {{ name|*friend* & co }}, hi {{name}}!")
    assert "Dear *friend* & co, hi!" in without(rendered.text)
    assert "Dear *friend* &amp; co, hi!" in without(rendered.html)
    assert f"hi{SPACED_NAME}!" in rendered.text


def test_it_leaves_names_in_code_alone() -> None:
    assert body_text("`{{ name }}`") == "`{{ name }}`"


def test_it_gives_a_page_the_fallback_of_a_name() -> None:
    assert fragment("Dear {{ name|friend }}, hi {{ name }}!") == "<p>Dear friend, hi!</p>\n"


@pytest.mark.parametrize(
    ("markdown", "gone"),
    [
        ("<script>alert(1)</script>", "alert"),
        ('<img src="x" alt="x" onerror="alert(1)">', "onerror"),
        ("[x](javascript:alert(1))", "<a"),
        ('<a href="javascript:alert(1)">x</a>', "javascript"),
        ('<a href="data:text/html,x">x</a>', "data:"),
        ('<a href="tel:1">x</a>', "tel:"),
        ('<p style="position:fixed">x</p>', "style"),
        ("<style>p{color:red}</style>", "color"),
        ('<iframe src="https://example.org"></iframe>', "iframe"),
        ('<form action="https://example.org"><input></form>', "<form"),
        ('<p id="main" class="page">x</p>', "main"),
        ('<p class="page">x</p>', "page"),
        ("<!-- secret -->", "secret"),
    ],
)
def test_it_lets_no_harm_through(markdown: str, gone: str) -> None:
    assert gone not in fragment(markdown)
    assert gone not in body_text(markdown)


def test_it_keeps_images_with_their_size_and_description() -> None:
    html = fragment('<img src="https://example.org/a.png" alt="A" width="10" height="20">')
    assert 'src="https://example.org/a.png" alt="A" width="10" height="20"' in html


def test_it_colours_code_with_classes_on_a_page_and_styles_in_a_mail() -> None:
    code = "```rust\nfn main() {}\n```"
    assert '<pre class="highlight"><code><span class="k">fn</span>' in fragment(code)
    assert "style=" not in fragment(code)
    html = mail(code).html
    assert '<span class="k" style="color: #008000;">fn</span>' in html
    assert re.search(r"pre\.highlight \.k\b[^}]*\{color:#[0-9a-f]{6}!important\}", html)
    assert "pre.highlight .k" in code_css()


def test_the_pages_style_sheet_for_code_is_what_the_function_gives_now() -> None:
    kept = finders.find("newsletter/code.css")
    assert kept, "newsletter/static/newsletter/code.css is missing"
    assert Path(kept).read_text() == code_css(), "write it again from newsletter.rendering.code_css"


@pytest.mark.parametrize("language", ["", "nonsense", "rust,ignore", "{{ x }}"])
def test_it_shows_code_of_any_language(language: str) -> None:
    assert body_text(f"```{language}\n<a> &amp; b\n```") == "    <a> &amp; b"


def test_it_says_a_column_s_alignment_without_a_style() -> None:
    html = fragment("| a |\n|:-:|\n| b |")
    assert '<td align="center">b</td>' in html
    assert "style" not in html


def test_it_writes_footnotes() -> None:
    html = fragment("A[^1].\n\n[^1]: Note.")
    assert 'href="#fn1" id="fnref1"' in html
    assert '<li id="fn1"' in html
    assert body_text("A[^1].\n\n[^1]: Note.") == "A^1.\n\n* * *\n\n1. Note."


def test_it_writes_a_real_newsletter_as_text() -> None:
    assert (
        body_text(REAL)
        == """\
Events
------

Virtual
~~~~~~~

* 2026-06-04 | Virtual (Berlin) | Rust Berlin
  https://www.example.org/rust-berlin
  * Hack and Learn
    https://www.example.org/events/1/
* [video] Generics
  https://www.example.org/v

Read the post [1] by Bo [2], then reply.
[1] https://a.example.org/post
[2] https://b.example.org/

what ❌ (primary) | mean
------------------+------
All               | -0.8%

Discuss
https://www.example.org/discuss"""
    )


def test_it_nests_lists_in_html() -> None:
    assert re.search(r"<li>2026-06-04[^\n]*\n<ul>\n<li><a [^\n]*Hack and Learn", fragment(REAL))


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("a\nb  \nc", "a b\nc"),
        ("> a\n>\n> b", "> a\n>\n> b"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("* a\n\n  b\n* c", "* a\n\n  b\n\n* c"),
        ("<https://example.org/a>", "https://example.org/a"),
        ("[me](mailto:me@example.org)", "me\nmailto:me@example.org"),
        ("<me@example.org>", "me@example.org"),
        ('<a href="https://example.org/">raw</a>', "raw\nhttps://example.org/"),
        ("![A cat](https://example.org/c.png)", "[A cat]"),
        ("~~a~~ **b** *c* `d`", "a *b* *c* `d`"),
        ("---\n\na", "* * *\n\na"),
        ("a &amp; b &lt;c&gt;", "a & b <c>"),
        ("# A\n\n#### B", "A\n=\n\nB"),
    ],
)
def test_it_writes_text_that_reads_well(markdown: str, text: str) -> None:
    assert body_text(markdown) == text


def test_it_wraps_text_and_never_breaks_an_address() -> None:
    url = "https://example.org/" + "long/" * 40
    lines = body_text(f"{'word ' * 60}[link]({url})").split("\n")
    assert lines[-1] == url
    assert max(map(len, lines[:-1])) <= 72


def test_it_writes_a_post_that_hugo_reads() -> None:
    post = render_post(document("---\n\n*Hi* {{ name|you }}\n\n`{{ name }}`"), SLOTS)
    _, front, body = post.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "title": "Spring <is> here",
        "date": datetime.date(2026, 6, 3),
        "slug": "spring",
        "summary": "What is new",
        "author": "Ana",
        "tags": ["news"],
        "podcast": {"title": "Episode 12", "url": EPISODE.url, "duration": 1925},
    }
    assert body == (
        "\n[Listen to the episode: Episode 12](<https://pod.example.org/12?a=1&b=2>) (32 min)\n\n"
        "---\n\n*Hi* you\n\n`{{ name }}`\n"
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(deadline=None)
def test_it_quotes_any_title_in_a_post(title: str) -> None:
    front = render_post(document(title=title), BARE).split("\n---\n")[0]
    assert yaml.safe_load(front.removeprefix("---\n"))["title"] == title


@pytest.mark.parametrize("slug", ["1e5", "0o17", "y", "null", "2026-06-03"])
def test_it_quotes_words_that_hugo_would_take_for_something_else(slug: str) -> None:
    assert f'\nslug: "{slug}"\n' in render_post(document(slug=slug), BARE)


def test_it_lets_no_shortcode_in_through_an_episode_s_url() -> None:
    episode = PodcastSlot("Episode 12", "https://podcast.example.org/a.mp3?{{%x%}}", None)
    assert "{{" not in render_post(document("Hi"), Slots(episode, ""))


def test_it_lets_no_shortcode_in_through_an_episode_s_title() -> None:
    slots = Slots(PodcastSlot("[x](y) {{< figure >}} {{% p %}}", EPISODE.url, None), BARE.web_url)
    line = render_post(DOCUMENT, slots).split("\n---\n")[1]
    assert r"\[x\]\(y\) \{\{\< figure" in line
    assert "{{" not in line


def test_it_takes_a_placeholder_out_of_an_episode_s_title() -> None:
    slots = Slots(PodcastSlot(f"a{UNSUBSCRIBE_URL}", EPISODE.url, None), BARE.web_url)
    assert mail("Hello.", slots).html.count(UNSUBSCRIBE_URL) == 1


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/spring/", "http://", "https://[x"])
def test_it_refuses_slots_that_are_no_web_addresses(url: str) -> None:
    with pytest.raises(RenderingError):
        Slots(None, url)
    with pytest.raises(RenderingError):
        PodcastSlot("Episode", url, None)


def test_it_offers_no_web_page_where_there_is_none() -> None:
    rendered = mail("Hello.", Slots(None, ""))
    assert "View on the web" not in rendered.html + rendered.text


def test_it_finds_nothing_wrong_with_a_good_document() -> None:
    assert problems(document(REAL)) == ()
    assert warnings(document(REAL)) == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"postal_address": " \n"}, "postal address"),
        ({"title": " "}, "title is empty"),
        ({"sender_name": ""}, "sender name"),
        ({"markdown": "<!-- nothing -->"}, "body is empty"),
        ({"markdown": UNSUBSCRIBE_URL}, "is reserved"),
        ({"markdown": "[carteirox**slotx**a](https://example.org)"}, "is reserved"),
        ({"markdown": "&#99;arteiroxSLOTxa"}, "is reserved"),
        ({"summary": SPACED_NAME}, "is reserved"),
        ({"markdown": "<div>" * 101}, "101 elements|More than 100 elements"),
        ({"markdown": "<b></i>" * 30_000}, "More than 100 elements"),
        ({"markdown": "word " * 400_001}, "more than 2000000"),
    ],
)
def test_it_forbids_approval(changed: dict[str, Any], words: str) -> None:
    (problem,) = problems(dataclasses.replace(DOCUMENT, **changed))
    assert re.search(words, problem)


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("[x](/posts/1)", "link to /posts/1 is relative"),
        ("![x](a.png)", "image to a.png is relative"),
        ("![](https://example.org/a.png)", "no description"),
        ("Hi {{ first_name }}", "{{ first_name }} is sent as it stands"),
        ("word " * 21_000, "Gmail"),
    ],
)
def test_it_warns(markdown: str, words: str) -> None:
    (warning,) = warnings(document(markdown))
    assert words in warning


@given(st.text(max_size=200) | st.lists(st.sampled_from(SHARDS), max_size=40).map("".join))
@settings(max_examples=200, deadline=None)
def test_it_renders_whatever_an_author_writes(markdown: str) -> None:
    found = document(markdown)
    rendered = render_email(found, SLOTS)
    assert rendered == render_email(found, SLOTS)
    assert rendered.html.count(UNSUBSCRIBE_URL) == rendered.text.count(UNSUBSCRIBE_URL) == 1
    assert not re.search(r"<script|\son\w+=", render_fragment(found, SLOTS))
    assert render_post(found, SLOTS).endswith("\n")


@pytest.mark.parametrize(
    ("language", "date"),
    [
        ("en-GB", "1 August 2026"),
        ("pt", "1 de agosto de 2026"),
        ("pt-br", "1º de agosto de 2026"),
        ("es", "1 de agosto de 2026"),
        ("de-AT", "1. August 2026"),
        ("fr_CA", "1er août 2026"),
        ("xx", "1 August 2026"),
    ],
)
def test_it_writes_dates_as_the_language_does(language: str, date: str) -> None:
    assert phrases(language).date(datetime.date(2026, 8, 1)) == date


def test_it_fills_in_the_newsletter_s_name() -> None:
    assert phrases("de").about("{x}").unsubscribe_question == "{x} abbestellen?"


@pytest.mark.parametrize(
    ("seconds", "words"), [(10, "1 min"), (1925, "32 min"), (3900, "1 h 05 min")]
)
def test_it_rounds_durations(seconds: int, words: str) -> None:
    assert phrases("en").duration(seconds) == words
