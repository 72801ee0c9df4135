"""A guarded write as a value: all guards hold and everything is written, or nothing is."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Guard:
    """`key` was last modified at `store_rev`; 0: it does not exist."""

    key: str
    store_rev: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0
    """0: kept until deleted."""


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Txn:
    """At most 128 operations (etcd's own limit), each key at most once."""

    guards: tuple[Guard, ...] = ()
    writes: tuple[Put | Delete, ...] = ()
    why: str = field(default="", compare=False)
    """For the log and for the error when it conflicts."""

    def __post_init__(self) -> None:
        keys = [w.key for w in self.writes]
        assert len(keys) == len(set(keys)), f"a key twice in one transaction: {sorted(keys)}"
        assert len(keys) <= 128, f"{len(keys)} writes in one transaction; the limit is 128"
