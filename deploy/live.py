"""The live status of a foreground `ebb up`: what happens scrolls by above, the components stand below."""

import asyncio
import contextlib
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.text import Text

from deploy import view
from deploy.runner import Runner


class Live:
    """A context manager around rich's Live; `tell` prints a line above the table."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Live":
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._live.__exit__(*exc)

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may have hung up
            self._console.print(f"{time.strftime('%H:%M:%S')}  {line}", markup=False)

    async def refresh(self, runner: Runner) -> None:
        """For ever: once a second ask the components and draw."""
        while True:
            rows = view.rows(runner.state, await runner.problems())
            foot = Text("\nCtrl-C drains and stops everything; what was deployed is kept", style="dim")
            with contextlib.suppress(OSError):
                self._live.update(Group(Text(""), view.table(rows, time.time()), foot), refresh=True)
            await asyncio.sleep(1)
