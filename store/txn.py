"""A guarded write as a value: all guards hold and everything is written, or nothing is."""

from dataclasses import dataclass, field

from store.errors import TooLarge


@dataclass(frozen=True, slots=True)
class Guard:
    """`key` was last modified at `store_rev`; 0: it does not exist. Or: `key` is still the one that was created at
    `created_rev`, however often it was modified since (a leader's key, which fences its writes)."""

    key: str
    store_rev: int | None = None
    created_rev: int | None = None

    def __post_init__(self) -> None:
        assert (self.store_rev is None) != (self.created_rev is None), f"{self.key}: want store_rev or created_rev, one of them"

    def holds(self, store_rev: int, created_rev: int) -> bool:
        """Whether it holds for a key that stands at these; both are 0 for a key that does not exist."""
        return self.created_rev == created_rev if self.store_rev is None else self.store_rev == store_rev


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
        assert len(self.guards) <= 128, f"{len(self.guards)} guards in one transaction; the limit is 128"

    def conflict(self) -> str:
        """What to say when a guard did not hold."""
        keys = ", ".join(guard.key for guard in self.guards)
        return f"{self.why or 'write'}: somebody else wrote first (guards: {keys}); read again and decide again"


MAX_BYTES = 1_500_000
"""What one transaction may carry: etcd's own default limit of 1.5 MiB, less its framing."""


def check_size(txn: Txn) -> None:
    """Raises TooLarge when `txn` carries more than MAX_BYTES of keys and values."""
    size = sum(len(w.key.encode()) + (len(w.value) if isinstance(w, Put) else 0) for w in txn.writes)
    if size > MAX_BYTES:
        largest = max(txn.writes, key=lambda w: len(w.value) if isinstance(w, Put) else 0)
        raise TooLarge(f"a write of {size:,} bytes (largest: {largest.key}); at most {MAX_BYTES:,} go at once")
