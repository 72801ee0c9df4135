"""The API put together: who there is, what is audited, the gate, and the routes behind it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litestar.handlers import BaseRouteHandler

from process import logs
from process.clock import Clock
from process.run import Jobs
from process.settings import BadSettings, loopback
from registry import oidc
from registry.api import app, audit_routes, people_routes, project_routes
from registry.api.gate import Gate
from registry.api.project_routes import Projects
from registry.api.streams import Streams
from registry.audit import Attempt, AuditFailed, AuditLog
from registry.authority import Authority, NoAuthority
from registry.bounds import Bounds
from registry.directory import ADMIN, Directory
from registry.people import People
from registry.quotas import Counts
from registry.servingtls import ServingTls
from registry.settings import Settings
from registry.tokens import NoToken
from store import keys
from store.backend import Store
from store.projects import Policy, Project, project_of
from store.watch import Table

log = logs.get("registry")


class Front:
    """What stands before the routes, and the routes of people, projects and the audit log."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, streams: Streams) -> None:
        """Raises BadSettings."""
        if not settings.listen_tls and not loopback(settings.listen):
            raise BadSettings(
                f"--listen {settings.listen}: beyond loopback only with TLS: --listen-tls true, or 127.0.0.1:PORT"
            )
        self._settings, self._clock = settings, clock
        self.people = People(store, clock)
        self.projects: Table[Project] = Table(store, keys.PROJECTS, Project)
        self.counts = Counts(lambda name: project_of(self.projects, name).quota)
        self.audit = AuditLog(Path(settings.data) / "audit", clock)
        try:
            self.audit.open()
        except AuditFailed as error:
            raise BadSettings(f"--data: {error}") from None
        self._issuers = (
            oidc.Issuers(oidc.read(Path(settings.oidc_file)), clock, self.people.by_claim) if settings.oidc_file else None
        )
        self._store, self._streams = store, streams
        self._directory = Directory(store, clock, self.people)
        by_claim = self._issuers.identity if self._issuers is not None else None
        self.gate = Gate(self.people, self.audit, clock, by_claim, settings.principal_per_s, settings.address_per_s)

    def policy(self, project: str) -> Policy:
        """What the project's images must be."""
        return project_of(self.projects, project).policy

    def tables(self) -> dict[str, Table[Any]]:
        return {**self.people.tables(), "projects": self.projects}

    def application(self, handlers: Sequence[BaseRouteHandler], named: Callable[[], list[str]], bounds: Bounds) -> Gate:
        """The gate before Litestar. `named`: the projects that have objects."""
        projects = Projects(self._store, self._clock, self.projects, named, self.counts)
        own = [
            *project_routes.handlers(projects),
            *people_routes.handlers(people_routes.PeopleRoutes(self._directory, self.people, self._clock)),
            *audit_routes.handlers(audit_routes.AuditRoutes(self.audit, self._streams)),
        ]
        self.gate.app = app.build([*own, *handlers], self.gate.authorise, bounds)
        return self.gate

    async def begin(self, jobs: Jobs) -> None:
        """What goes on while the API is served. The tables must be running. Raises BadSettings."""
        jobs.start(self.gate.run(), "ends of open answers", fatal=True)
        jobs.start(self.audit.sync(), "audit", fatal=True)
        await self.projects.synced()  # before the first deploy is looked at: a policy not known yet would let all through
        await self._admit_admin()

    async def _admit_admin(self) -> None:
        """Make the token in --admin-token-file the admin's, once who there is is known. Raises BadSettings."""
        for table in self.people.tables().values():
            await table.synced()
        if not self._settings.admin_token_file:
            return
        path = Path(self._settings.admin_token_file)
        try:
            if await self._directory.first_admin(_private(path)):
                made = Attempt(who="registry", action="create", kind="tokens", name=ADMIN, why=f"--admin-token-file {path}")
                self.audit.write(made, 201)
                log.info("the token of --admin-token-file is an admin's now", file=str(path))
        except (OSError, NoToken, AuditFailed) as error:
            raise BadSettings(f"--admin-token-file {path}: {error}") from None

    def tls(self) -> ServingTls | None:
        """What the API's TLS is made of; None: it is served in the clear, on loopback. Raises BadSettings."""
        settings = self._settings
        if not settings.listen_tls:
            return None
        if not settings.local_ca:
            raise BadSettings("--listen-tls true: needs --local-ca and --local-ca-key to sign a certificate with")
        try:
            authority = Authority(Path(settings.local_ca), Path(settings.local_ca_key))
            return ServingTls(authority, ("localhost", f"api.{settings.domain}", "127.0.0.1", "::1"), self._clock)
        except NoAuthority as error:
            raise BadSettings(f"--local-ca, --local-ca-key: {error}") from None

    async def close(self) -> None:
        if self._issuers is not None:
            await self._issuers.close()


def _private(path: Path) -> str:
    """What is in a file of one line that nobody else may read. Raises OSError, BadSettings."""
    if path.stat().st_mode & 0o077:
        raise BadSettings(f"{path} may be read by others; chmod 600 it")
    return path.read_text().strip()
