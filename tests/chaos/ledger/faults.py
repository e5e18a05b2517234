"""The mail server's faults by name: what it does at which phase of the dialogue."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.stand_ins.smtp_acts import (
    Act,
    accept_then_drop,
    drop,
    garbled,
    long_line,
    say,
    say_then_drop,
    stall,
    trickle,
)

LATE = 1.5  # seconds: longer than a sender of a run with slow faults waits
PACE = 0.02  # seconds a byte: slow, and in time


@dataclass(frozen=True)
class Fault:
    """`slow`: only where the senders' patience is short."""

    phase: str
    act: Act
    slow: bool = False


# phase -> its usual code, a 4xx and a 5xx for it
_CODES = {
    "greeting": (220, "421 4.3.2 closing", "554 5.3.2 not here"),
    "ehlo": (250, "451 4.3.0 later", "550 5.7.1 go away"),
    "mail": (250, "451 4.3.0 later", "550 5.7.1 not you"),
    "rcpt": (250, "450 4.2.0 greylisted", "550 5.1.1 no such user"),
    "data": (354, "451 4.3.0 later", "554 5.6.0 no"),
    "dot": (250, "451 4.3.0 later", "554 5.6.0 refused"),
}
PHASES = (*_CODES, "body", "quit")


def _of(phase: str) -> dict[str, Fault]:
    code, later, never = _CODES[phase]
    slow = replace(stall(LATE), accepted=None)
    return {
        f"{phase}_4xx": Fault(phase, say(later)),
        f"{phase}_421": Fault(phase, say_then_drop("421 4.3.2 closing")),
        f"{phase}_5xx": Fault(phase, say(never)),
        f"{phase}_drop": Fault(phase, drop()),
        f"{phase}_reset": Fault(phase, drop(reset=True)),
        f"{phase}_stall": Fault(phase, slow, slow=True),
        f"{phase}_garbled": Fault(phase, garbled()),
        f"{phase}_9kB": Fault(phase, long_line(code)),
        f"{phase}_multi_line": Fault(phase, say(f"{code}-2.0.0 one", f"{code} 2.0.0 two")),
        f"{phase}_two_codes": Fault(phase, replace(say(f"{code}-one", "550 two"), accepted=False)),
        f"{phase}_bytewise": Fault(phase, trickle(f"{code} 2.0.0 slowly", PACE)),
        f"{phase}_bytewise_late": Fault(phase, trickle(f"{code} 2.0.0 slowly", 0.1), slow=True),
    }


WIRE: dict[str, Fault] = {
    **{name: fault for phase in _CODES for name, fault in _of(phase).items()},
    "body_drop": Fault("body", drop()),
    "body_reset": Fault("body", drop(reset=True)),
    "body_early_reply": Fault("body", say_then_drop("451 4.3.0 enough")),
    # Against RFC 5321: it answers the body, and takes the message all the same.
    "body_early_and_taken": Fault("body", say("451 4.3.0 enough")),
    # Accepted, and the word of it is lost.
    "dot_taken_drop": Fault("dot", accept_then_drop()),
    "dot_taken_garbled": Fault("dot", garbled(accepted=True)),
    "dot_taken_9kB": Fault("dot", long_line(250, accepted=True)),
    "dot_taken_500_9kB": Fault("dot", long_line(500, accepted=True)),
    "quit_4xx": Fault("quit", say("421 4.3.0 no")),
    "quit_5xx": Fault("quit", say("500 5.5.1 what?")),
    "quit_drop": Fault("quit", drop()),
    "quit_garbled": Fault("quit", garbled()),
    "quit_9kB": Fault("quit", long_line(221)),
}
