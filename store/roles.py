"""Who may say what: keys in etcd and subjects on NATS, by the role and name in a certificate. Pure: the gate and NATS hold to it.

`{name}` is the name in the certificate: of a node agent, its node's. What ends in `/` stands for all below it, and
nothing at all for everything. `refers` are
prefixes of which a node sees only what its own assignments name: the revisions, and the Secrets and ConfigMaps of those.

Registry and autoscaler speak to etcd itself, without the gate: what they write is what all others believe, so to be one of them is
to be the cluster. They stand here with what they use, for the bus and for who reads this.
"""

from dataclasses import dataclass

from store import keys
from store.model import EnvFrom, EnvRef, Revision
from store.volumes import Volume

ALL = ""


@dataclass(frozen=True, slots=True)
class Role:
    """What one role may do. Subjects are NATS's: `*` one word, `>` the rest."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()
    births: tuple[str, ...] = ()
    """Of what it may read: where a watch tells it of keys that come and go, and not of each change between."""
    says: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    answers: bool = False
    """Replies to requests that reached it."""
    straight: bool = False
    """Speaks to etcd itself."""


ROLES = {
    "registry": Role(
        reads=(ALL,),
        writes=(ALL,),
        says=("ebb.story", "ebb.image.resolve", "ebb.why"),
        hears=("ebb.story", "ebb.samples", "ebb.image.progress.>", "ebb.identity.>"),
        answers=True,
        straight=True,
    ),
    "autoscaler": Role(
        reads=(ALL,),
        writes=(ALL,),
        says=("ebb.story", "ebb.refusal"),
        hears=("ebb.wake", "ebb.samples", "ebb.instance.>", "ebb.usage.>", "ebb.why"),
        answers=True,
        straight=True,
    ),
    "ingress": Role(
        reads=(
            keys.ROUTES, keys.DOMAINS, keys.INSTANCES, keys.ASSIGNMENTS, keys.CERTIFICATES, keys.CHALLENGES, keys.PROJECTS,
            keys.IDENTITY, keys.BINDINGS, keys.members("ingress"),
        ),
        writes=(keys.members("ingress"), keys.WAKES),
        # Whose an instance is never changes, and what its node shall do with it changes at every start.
        births=(keys.ASSIGNMENTS,),
        says=("ebb.wake", "ebb.samples", "ebb.drained.>", "ebb.story"),
        hears=("ebb.instance.>", "ebb.refusal"),
    ),
    "nodeagent": Role(
        reads=(
            keys.assignments("{name}"), keys.instances("{name}"), keys.node("{name}"), keys.members("ingress"), keys.PROJECTS,
        ),
        writes=(keys.instances("{name}"), keys.node("{name}")),
        refers=(keys.REVISIONS, keys.SECRETS, keys.CONFIGS),
        says=("ebb.instance.{name}", "ebb.usage.{name}", "ebb.image.progress.{name}", "ebb.identity.{name}", "ebb.story"),
        hears=("ebb.drained.{name}", "ebb.image.resolve"),
        answers=True,
    ),
}  # fmt: skip
"""Roles that are not here (nats, etcd, cli) may say nothing."""
NOBODY = Role()


@dataclass(frozen=True, slots=True)
class Span:
    """Keys from `start` up to but without `end`; without `end`, the one key."""

    start: bytes
    end: bytes = b""

    def inside(self, grant: str) -> bool:
        """Whether every key of it is granted by a key, or by a prefix that ends in `/`."""
        key = grant.encode()
        if grant == ALL:
            return True
        if not grant.endswith("/"):
            return self.start == key and self.end in (b"", key + b"\0")
        # etcd reads an end of one zero byte as "to the last key".
        if self.end == b"\0" or not self.start.startswith(key):
            return False
        return not self.end or self.end <= key[:-1] + bytes([key[-1] + 1])

    def holds(self, key: str) -> bool:
        data = key.encode()
        return self.start <= data < self.end if self.end else self.start == data


def role(name: str) -> Role:
    return ROLES.get(name, NOBODY)


def may_read(of: Role, name: str, span: Span) -> bool:
    """Whether `of`, called `name`, may read and watch all of `span`."""
    return any(span.inside(grant.replace("{name}", name)) for grant in of.reads)


def may_write(of: Role, name: str, span: Span) -> bool:
    return any(span.inside(grant.replace("{name}", name)) for grant in of.writes)


def births_alone(of: Role, span: Span) -> bool:
    """Whether of `span` the role hears that keys come and go, and no more."""
    return any(span.inside(grant) for grant in of.births)


def refers(of: Role, span: Span) -> bool:
    """Whether of `span` the role sees what its assignments name."""
    return any(span.inside(grant) for grant in of.refers)


def named_by(revision: Revision) -> frozenset[str]:
    """The Secrets and ConfigMaps that a revision's instances are made with, as keys."""
    project = revision.project
    sources: list[EnvFrom | EnvRef | Volume] = [*revision.env_from, *revision.env_refs, *revision.volumes]
    secrets = {*revision.pull_secrets, *(each.secret for each in sources)}
    configs = {each.config for each in sources}
    found = {keys.secret(project, each) for each in secrets if each} | {keys.config(project, each) for each in configs if each}
    return frozenset(found)


def inbox(who: str, name: str) -> str:
    """Where answers to the requests of one process go: of its own, for who may hear `_INBOX.>` hears everybody's."""
    return f"_INBOX.{who}.{name}"


def subjects(who: str, name: str) -> tuple[list[str], list[str]]:
    """What NATS lets it publish, and subscribe to."""
    of = role(who)
    says = [subject.replace("{name}", name) for subject in of.says]
    hears = [subject.replace("{name}", name) for subject in of.hears]
    return says, [*hears, f"{inbox(who, name)}.>"]
