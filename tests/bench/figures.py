"""The figures of each part, as files: one for a part on a database, written as soon as it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PARTS = ("fsync", "wire", "latency", "flat", "memory", "bulk", "confirm", "pages", "profile")
DATABASES = ("sqlite", "postgres")

Figures = dict[str, Any]


def save(folder: Path, part: str, database: str, found: Figures) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _file(folder, part, database).write_text(json.dumps(found, indent=1) + "\n")


def load(folder: Path) -> dict[tuple[str, str], Figures]:
    """(part, database) -> {"machine": ..., "figures" or "failed": ...}, of those that are there."""
    return {
        (part, database): json.loads(file.read_text())
        for part in PARTS
        for database in DATABASES
        if (file := _file(folder, part, database)).exists()
    }


def _file(folder: Path, part: str, database: str) -> Path:
    return folder / f"{part}-{database}.json"
