"""How a command ends when it does not succeed."""


class Refused(Exception):
    """The system said no, or did not answer: exit code 1. The message says what, why, and what to do."""

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class BadUsage(Exception):
    """The command line makes no sense: exit code 2."""
