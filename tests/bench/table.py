"""The tables of docs/performance.md, from the figures that are there; what is missing says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.bench import goals
from tests.bench.figures import DATABASES, Figures
from tests.bench.goals import Goal, both
from tests.bench.sizes import SENDERS, WINDOWS

BEGIN, END = "<!-- made by make bench -->", "<!-- end of what make bench made -->"
SHARES = ("render", "stamp", "SMTP", "database", "idle", "other")
SLOWEST = 5  # pages that are named

Found = dict[tuple[str, str], Figures]


def replace(document: str, made: str) -> str:
    """The document with what stands between the markers made anew; ValueError where it has none."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{made.strip()}\n\n{END}{tail}"


def make(found: Found) -> str:
    parts = (conditions, against_goals, rounds, far, tenths, memory, profile, pages)
    return "\n\n".join(text for part in parts if (text := part(found)))


def conditions(found: Found) -> str:
    """When and where: of each database, by its oldest and newest part."""
    lines = []
    for database in DATABASES:
        machines = [its["machine"] for (_, of), its in found.items() if of == database]
        if not machines:
            lines.append(f"- {name(database)}: not measured")
            continue
        last = max(machines, key=lambda machine: str(machine["date"]))
        dates = sorted({machine["date"] for machine in machines})
        lines.append(
            f"- {last['database']}: {' to '.join({dates[0]: 0, dates[-1]: 0})}; {last['cpu']}, Linux {last['kernel']}, "
            f"Python {last['python']}; load at the start {max(machine['load'] for machine in machines):.1f}"
        )
    return "\n".join(lines)


def against_goals(found: Found) -> str:
    rows = [
        [goal.what, *(cell(found, goal, database) for database in DATABASES), goal.asked()]
        for goal in all_goals()
    ]
    return table(["", *map(name, DATABASES), "goal"], rows)


def cell(found: Found, goal: Goal, database: str) -> str:
    its = found.get((goal.part, database))
    if its is None:
        return "not measured"
    if "failed" in its:
        return f"no figure: {one_line(its['failed'])}"
    try:
        value = goal.value(its["figures"])
    except (KeyError, ValueError):
        return "not measured"
    met = goal.met(value, database)
    return goal.shown(value) + ("" if met is None else " ✓" if met else " ✗ **missed**")


def all_goals() -> Iterator[Goal]:
    yield Goal("fsync", "fdatasync of 4 kB, median", key("median"), goals.milliseconds)
    yield Goal("fsync", "the same, 95th percentile", key("p95"), goals.milliseconds)
    for senders in SENDERS:
        for window in WINDOWS:
            yield from wire_goals(window, senders)
    yield Goal("flat", "a million: rate", key("rate"), goals.rate)
    flat = key("slowest_to_fastest")
    yield Goal(
        "flat", "a million: last tenth to first", last_to_first, goals.percent, both(goals.FLAT)
    )
    yield Goal("flat", "a million: slowest tenth to fastest", flat, goals.percent, both(goals.FLAT))
    for window in WINDOWS:
        far_off = key(f"100 ms, {window}", "share")
        what = f"100 ms away, {window} connections: share of C / (2 × RTT)"
        yield Goal("latency", what, far_off, goals.percent, both(goals.FAR))
    yield from bulk_goals()
    what = "confirmation under load, first attempt after, p95"
    yield Goal("confirm", what, key("to_first_attempt", "p95"), goals.seconds)
    yield Goal("confirm", "the same, accepted, p95", key("to_accepted", "p95"), goals.seconds)
    for kind, bound in (("admin", goals.ADMIN), ("public", goals.PUBLIC)):
        what = f"slowest {kind} page, median"
        yield Goal("pages", what, slowest(kind), goals.milliseconds, both(bound), at_least=False)


def last_to_first(its: Figures) -> float:
    rates: list[float] = its["rates"]
    return rates[-1] / rates[0]


def wire_goals(window: int, senders: int) -> Iterator[Goal]:
    run = f"{window} x {senders}"
    what = f"window {window}, 1 sender" if senders == 1 else f"window {window}, {senders} senders"
    bound = {name: goals.RATIOS[name, window] for name in DATABASES} if senders == 1 else None
    django = both(goals.TO_DJANGO) if senders == 1 else None
    yield Goal("wire", f"{what}: rate of `work`", key(run, "work"), goals.rate)
    yield Goal("wire", f"{what}: to smtp-source", key(run, "ratio"), goals.ratio, bound)
    yield Goal("wire", f"{what}: to Django's loop", key(run, "to_django"), goals.times, django)


def bulk_goals() -> Iterator[Goal]:
    for what, bound in (("import", goals.IMPORT), ("export", None), ("freeze", goals.FREEZE)):
        limit = both(bound) if bound else None
        value = million(what, "seconds")
        yield Goal("bulk", f"{what} of a million", value, goals.seconds, limit, at_least=False)


def rounds(found: Found) -> str:
    """What the medians are of."""
    rows = []
    for database in DATABASES:
        for run, its in figures(found, "wire", database).items():
            every = its["rounds"]
            rows.append(
                [
                    f"{name(database)}, {run}",
                    f"{its['readers']:,}",
                    *(spread(every, what) for what in ("source", "django", "work")),
                    ", ".join(f"{row['ratio']:.2f}" for row in every),
                    f"{its['cpu_ms']:.2f} + {its['server_cpu_ms']:.2f}",
                ]
            )
    head = [
        "window x senders",
        "copies",
        "smtp-source /s",
        "Django /s",
        "`work` /s",
        "ratio of each round",
    ]
    return table([*head, "CPU ms a copy: `work` + server"], rows)


def far(found: Found) -> str:
    rows = [
        [
            f"{name(database)}, {run}",
            goals.rate(its["rate"]),
            goals.percent(its["share"]) if "share" in its else "",
            goals.percent(its["bare_share"]) if "share" in its else "",
        ]
        for database in DATABASES
        for run, its in figures(found, "latency", database).items()
    ]
    return table(["round trip, connections", "`work`", "of C / (2 × RTT)", "a bare client"], rows)


def tenths(found: Found) -> str:
    rows = [
        [name(database), *(f"{rate:,.0f}" for rate in its["rates"])]
        for database in DATABASES
        if (its := figures(found, "flat", database))
    ]
    return table(["a million, by tenths", *map(str, range(1, 11))], rows)


def memory(found: Found) -> str:
    """Peak MB at 10,000 and at a million, and the growth."""
    rows = []
    for database in DATABASES:
        for role, (few, many) in sorted(peaks(found, database).items()):
            growth = many / few - 1
            met = many <= goals.MEMORY and growth < goals.GROWTH
            shown = [goals.megabytes(few), goals.megabytes(many), f"{100 * growth:+.1f} %"]
            rows.append([f"{name(database)}, {role}", *shown, "✓" if met else "✗ **missed**"])
    head = ["peak memory", "10,000", "a million", "growth"]
    return table([*head, f"goal: ≤ {goals.MEMORY:.0f} MB, < {100 * goals.GROWTH:.0f} %"], rows)


def peaks(found: Found, database: str) -> dict[str, tuple[float, float]]:
    few = figures(found, "memory", database)
    many = figures(found, "flat", database).get("memory", {})
    pairs = {f"`work`, {role}": (mb, many.get(role)) for role, mb in few.get("work", {}).items()}
    pairs["gunicorn"] = (few.get("web"), figures(found, "pages", database).get("web_mb"))
    bulk = list(figures(found, "bulk", database).values())
    if len(bulk) == 2:
        for what in ("import", "export", "freeze"):
            pairs[what] = (bulk[0][what].get("mb"), bulk[1][what].get("mb"))
    return {role: (few, many) for role, (few, many) in pairs.items() if few and many}


def profile(found: Found) -> str:
    rows = []
    for database in DATABASES:
        if its := figures(found, "profile", database):
            shares = [
                f"{100 * its['shares'].get(share, 0):.0f} % ({100 * its['cpu_shares'].get(share, 0):.0f})"
                for share in SHARES
            ]
            compiled = goals.milliseconds(its["compile_ms"])
            rows.append([name(database), goals.rate(its["rate"]), *shares, compiled])
    head = ["one sender, window 32", "sampled at", *SHARES, "render, once an issue"]
    return table(head, rows)


def pages(found: Found) -> str:
    """How many, the slowest by name, and what was no page."""
    rows = []
    for database in DATABASES:
        its = figures(found, "pages", database)
        for kind in ("admin", "public") if its else ():
            ordered = sorted(pages_of(its, kind).items(), key=lambda pair: -pair[1]["median"])
            named = ", ".join(
                f"{said.removeprefix('admin: ')} {page['median']:.0f}"
                for said, page in ordered[:SLOWEST]
            )
            busy = [its["under_load"][name] for name, _ in ordered if name in its["under_load"]]
            worst = f"{max(busy):.0f} ({len(busy)})" if busy else "not measured"
            rows.append([f"{name(database)}, {kind}", str(len(ordered)), named, worst])
        if its:
            left = ", ".join(f"{name} ({code})" for name, code in its["left_out"].items())
            post = its["under_load"].get("one-click POST")
            said = f"one-click POST {post:.0f}" if post else ""
            rows.append([f"{name(database)}, no figure", str(len(its["left_out"])), left, said])
    return table(["pages", "number", "the slowest, ms", "while it drains, the slowest, ms"], rows)


def pages_of(its: Figures, kind: str) -> dict[str, Any]:
    return {
        name: page
        for name, page in its["pages"].items()
        if page["path"].startswith("/admin/") == (kind == "admin")
    }


def slowest(kind: str) -> Callable[[Figures], float]:
    return lambda its: max(page["median"] for page in pages_of(its, kind).values())


def million(what: str, figure: str) -> Callable[[Figures], float]:
    return lambda its: float(list(its.values())[-1][what][figure])


def key(*names: str) -> Callable[[Figures], float]:
    def value(its: Figures) -> float:
        found: Any = its
        for name in names:
            found = found[name]
        return float(found)

    return value


def figures(found: Found, part: str, database: str) -> Figures:
    its: Figures = found.get((part, database), {}).get("figures", {})
    return its


def spread(rows: list[dict[str, float]], what: str) -> str:
    found = sorted(row[what] for row in rows)
    return f"{found[len(found) // 2]:,.0f} ({found[0]:,.0f} to {found[-1]:,.0f})"


def name(database: str) -> str:
    return {"sqlite": "SQLite", "postgres": "PostgreSQL"}[database]


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/").partition("; the log")[0][:80]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; nothing where there is no row."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
