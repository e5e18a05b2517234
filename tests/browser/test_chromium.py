"""The tools of these tests: the browser that they need, and the watch over every page."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from playwright.sync_api import Browser

from tests.browser.site import GET_CHROMIUM, ROOT, Watch
from tests.stand_ins.http import HttpStandIn, reply

pytestmark = pytest.mark.browser


def test_without_a_chromium_it_ends_with_2_and_says_how_to_get_one() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "browser",
        "tests/browser/test_reader.py",
    ]
    nowhere = {**os.environ, "PATH": "/nowhere", "CHROMIUM": ""}
    done = subprocess.run(command, cwd=ROOT, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 2
    assert GET_CHROMIUM in done.stdout + done.stderr


def test_the_watch_sees_what_comes_from_outside_and_what_the_policy_forbids(
    browser: Browser,
) -> None:
    policy = {"Content-Type": "text/html", "Content-Security-Policy": "script-src 'none'"}
    body = "<script>1</script><img src='http://example.org/x.png'>"
    watch = Watch()
    with HttpStandIn(reply(body=body, headers=policy)) as server:
        page = browser.new_page()
        watch.over(page, server.url().rstrip("/"))
        page.goto(server.url())
        page.close()
    assert watch.outside == ["http://example.org/x.png"]
    assert any("Content Security Policy" in text for text in watch.complaints)
