"""The certificates by which this machine's processes know each other: issued before they start, renewed while they run."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from deploy import nats_config, owners
from deploy.identities import Identities, NotIssued
from deploy.preflight import Refused
from deploy.settings import Engine
from process import logs
from process.identity import Who

ROLES = ("etcd", "nats", "gate", "registry", "autoscaler", "nodeagent", "ingress", "cli")
_log = logs.get("ebb")


class Issued:
    """Those of `engine`, each its process's user's when `owned` (we are root then). Raises Refused when there is no authority to be had."""

    def __init__(self, engine: Engine, *, owned: bool = False) -> None:
        self._engine, self._owned = engine, owned
        try:
            self._identities = Identities(Path(engine.root), lifetime_s=engine.identity_life_s)
        except NotIssued as error:
            raise Refused(f"certificates of the processes: {error}") from None

    def renew(self) -> bool:
        """Issue what is due, and give all files to whose they are; whether NATS has to read its files anew. Raises Refused."""
        engine, now = self._engine, time.time()
        due = [role for role in ROLES if self._identities.due(engine.identity(role), now)]
        try:
            for role in due:
                self._identities.issue(Who(role, engine.machine), engine.identity(role), now, uid=self._uid(role))
            ours = {Who(role, engine.machine) for role in ROLES if role not in ("etcd", "nats")}
            out = self._identities.shut_out()
            known = {who for who in ours | self._identities.joined() if who.uri not in out}
            own = engine.identity("nats")
            changed = nats_config.write(engine.nats_config, engine.port("nats"), own, known, uid=self._uid("nats"))
        except (NotIssued, OSError) as error:
            raise Refused(f"certificates of the processes: {error}") from None
        if self._owned:
            try:
                owners.settle(engine)
            except OSError as error:
                raise Refused(
                    f"{error.filename}: {error.strerror}; it has to be given to a user (--first-uid 0: to root)"
                ) from None
        return changed or "nats" in due

    def _uid(self, role: str) -> int:
        return self._engine.uid(role) if self._owned else -1

    async def renew_for_ever(self, reload_nats: Callable[[], None]) -> None:
        """Look often enough that what is due is renewed at once; what fails is tried again."""
        every_s = min(60.0, self._engine.identity_life_s / 12)
        while True:
            await asyncio.sleep(every_s)
            try:
                if await asyncio.to_thread(self.renew):
                    reload_nats()
            except Refused as error:
                _log.error("not renewed; trying again", error=str(error))
