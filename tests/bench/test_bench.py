"""That `make bench` works; how fast anything is, is no test's to say."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import figures, servers, table

MACHINE = {
    "date": "2026-11-22",
    "cpu": "2 x a processor",
    "kernel": "6.1",
    "python": "3.11",
    "database": "SQLite 3.40",
    "load": 0.1,
}
ROUND = {
    "source": 10_000.0,
    "django": 300.0,
    "work": 6_500.0,
    "ratio": 0.65,
    "to_django": 21.7,
    "cpu_ms": 0.2,
    "server_cpu_ms": 0.0,
}
FOUND = {
    "wire": {"32 x 1": {"readers": 50_000, "rounds": [ROUND], **ROUND}},
    "flat": {
        "rate": 6_000.0,
        "rates": [6_000.0] * 9 + [4_800.0],
        "slowest_to_fastest": 0.8,
        "memory": {"main": 110.0},
    },
    "memory": {"work": {"main": 100.0}, "web": 120.0},
    "latency": {"100 ms, 8": {"rate": 38.0, "share": 0.95, "bare_share": 0.99}},
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    page = tmp_path / "performance.md"
    page.write_text(f"# Before\n\n{table.BEGIN}\n\nold\n\n{table.END}\n\nAfter.\n")
    return tmp_path


def write(docs: Path) -> str:
    for part, its in FOUND.items():
        found = {"machine": MACHINE, "quick": False, "figures": its}
        figures.save(docs / "figures", part, "sqlite", found)
    broken = {"machine": MACHINE, "quick": False, "failed": "Void: 3 rows | are unknown"}
    figures.save(docs / "figures", "bulk", "sqlite", broken)
    assert bench.main(["--write", "--figures", str(docs / "figures"), "--docs", str(docs)]) == 0
    return (docs / "performance.md").read_text()


def test_a_part_leaves_its_figures_as_a_file(tmp_path: Path) -> None:
    words = ["--quick", "--only", "fsync", "--database", "sqlite", "--figures", str(tmp_path)]
    assert bench.main(words) == 0
    found = figures.load(tmp_path / "quick")["fsync", "sqlite"]
    assert found["figures"]["median"] > 0
    assert found["quick"]
    assert found["machine"]["database"].startswith("SQLite")


def test_the_table_says_which_goals_are_met_and_which_are_missed(docs: Path) -> None:
    text = write(docs)
    assert (
        "| window 32, 1 sender: to smtp-source | 0.65 ✓ | not measured | ≥ 0.60 / ≥ 0.50 |" in text
    )
    assert (
        "| a million: slowest tenth to fastest | 80 % ✗ **missed** | not measured | ≥ 90 % |"
        in text
    )
    assert "| SQLite, `work`, main | 100 MB | 110 MB | +10.0 % | ✗ **missed** |" in text


def test_what_could_not_be_measured_says_so(docs: Path) -> None:
    text = write(docs)
    assert "| import of a million | no figure: Void: 3 rows / are unknown | not measured |" in text
    assert "- PostgreSQL: not measured" in text


def test_only_what_stands_between_the_marks_is_written(docs: Path) -> None:
    text = write(docs)
    assert text.startswith("# Before\n\n" + table.BEGIN)
    assert text.endswith(table.END + "\n\nAfter.\n")
    assert "old" not in text
    assert write(docs) == text


def test_the_plot_is_a_picture(docs: Path) -> None:
    write(docs)
    tree = xml.etree.ElementTree.parse(docs / "images" / "performance.svg")
    assert len(tree.findall(".//{*}circle")) == 10
    assert len(tree.findall(".//{*}rect[@class='sqlite']")) == 2  # a bar and the legend


def test_it_names_the_package_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "find", lambda name: None)
    assert bench.main(["--quick"]) == 2
    assert "apt install postfix" in capsys.readouterr().out
