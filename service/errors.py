"""Defines the operating failure: one clear line that says what is wrong and what the operator does about it.

And names what reading JSON of others raises, which is nobody's failure here.
"""

from __future__ import annotations

import msgspec

UNREADABLE = (
    msgspec.DecodeError,
    UnicodeError,
    RecursionError,
)  # another shape, no JSON, no UTF-8, nested too deeply


class OperatorError(Exception):
    """A failure only the operator can mend; shown as one line, never as a traceback.

    `what` names the fault, `fix` the next step, `exit_code` what the process ends with (2 = configuration, 3 = dependency).
    """

    def __init__(self, what: str, fix: str, exit_code: int = 2) -> None:
        super().__init__(what)
        self.what = what.rstrip(". ")
        self.fix = fix.rstrip(". ")
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}."
