"""Which worker of the front door owns a revision's slots, and from when on it may give them out. Pure.

    members known ─▶ a view ─▶ told to all others ─▶ each answers what it holds ─▶ agreed: what the view gives me, I rule

A revision belongs to the worker that rendezvous hashing of the view says. Views may differ for a moment, so nobody rules by hash
alone: who is given a revision by a new view waits until every other member of that view has said that it has the same view (so
rules the revision no more) and which slots it still holds. What was one's own in all views since the last agreement stays so.
An answer counts only when it names the `token` last sent to that peer: what was said before is of another time.

A member is out of the view when it is proven dead: its connection ended, and it is of this machine (where the kernel ends
a connection with its process) or its key is gone too. What somebody who died held of slots that were not ours nobody knows: these
revisions rest for `ORPHAN_S`, after which the kernel's table of connections tells (`orphans`).
The argument that no two rule the same revision is docs/decisions/0017-slots-are-lent.md.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf

from store.model import RevisionKey

ORPHAN_S = 0.1
"""How long after a worker's end its connections to instances may still be about to close."""


@dataclass(frozen=True, slots=True)
class View:
    """Who is there; `leaving` own nothing any more, and only end what they have."""

    members: frozenset[str]
    leaving: frozenset[str] = frozenset()

    def owner(self, revision: RevisionKey) -> str:
        """The member with the highest hash (rendezvous): when one goes, only what it had moves. Empty without members."""
        able = self.members - self.leaving or self.members
        if len(able) < 2:
            return next(iter(able), "")
        return max(able, key=lambda member: blake2b(f"{member} {revision}".encode(), digest_size=8).digest())


@dataclass(slots=True)
class Peer:
    """Another worker. `token` is what its answer must name; the rest is what it said last."""

    local: bool = True
    known: bool = False
    up: bool = False
    dead: bool = False
    leaving: bool = False
    token: int = 0
    synced: bool = False
    its_view: View | None = None
    its_adoption: int = -1
    its_token: int = 0
    answered: bool = False
    """It has what we hold, so it may be asked for slots."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The view is another: ownership is to be looked at anew. `gone` are proven dead."""

    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreed:
    """Everybody has answered: what the view gives us may be ruled."""


@dataclass(frozen=True, slots=True)
class Say:
    """Tell `peer` our view."""

    peer: str
    token: int
    adoption: int
    view: View


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell `peer` which of its slots we hold; its `token` goes with that. Afterwards it may be asked. `afresh`: for the first
    time since one of us changed views, so that it knows of no request of ours."""

    peer: str
    token: int
    afresh: bool


@dataclass(frozen=True, slots=True)
class Forget:
    """What `peer` has asked for it will ask for again."""

    peer: str


Effect = Adopted | Agreed | Say | Answer | Forget


@dataclass(slots=True)
class _Grave:
    """Somebody died while we ruled what `chain` gave us (nothing unless `based`)."""

    until: float
    chain: tuple[View, ...]
    based: bool


@dataclass(slots=True)
class Ownership:
    """One worker's part. Alone until it hears of others."""

    me: str
    peers: dict[str, Peer] = field(default_factory=dict)
    adoption: int = 0
    died_at: float = -inf
    """When somebody was last found dead, or may have been."""
    leaving: bool = False
    view: View = field(init=False)
    agreed: bool = True
    _chain: list[View] = field(init=False)
    _based: bool = True
    """Whether the first view of the chain was agreed: at the very start it is not."""
    _graves: list[_Grave] = field(default_factory=list)
    _owners: dict[RevisionKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = View(frozenset({self.me}))
        self._chain = [self.view]

    # -- questions ------------------------------------------------------------------------------------------------------------

    def rules(self, revision: RevisionKey) -> bool:
        """Whether slots of `revision` may be given out here now."""
        if len(self._chain) == 1 and len(self.view.members) == 1 and not self._graves:
            return self._based
        if not _ruled(self._chain, self._based, self.me, revision):
            return False
        return all(_ruled(grave.chain, grave.based, self.me, revision) for grave in self._graves)

    def owner(self, revision: RevisionKey) -> str:
        found = self._owners.get(revision)
        if found is None:
            found = self._owners[revision] = self.view.owner(revision)
        return found

    def may_ask(self, peer: str) -> bool:
        found = self.peers.get(peer)
        return found is not None and found.up and found.answered

    def synced(self, peer: str) -> bool:
        """Whether all that `peer` holds of ours is known."""
        found = self.peers.get(peer)
        return found is not None and found.synced

    @property
    def resting(self) -> bool:
        """Whether time alone will make something ours."""
        return bool(self._graves)

    def forget(self, revision: RevisionKey) -> None:
        """Nobody asks for it here any more."""
        self._owners.pop(revision, None)

    # -- events ---------------------------------------------------------------------------------------------------------------

    def start(self, others: dict[str, bool], now: float) -> list[Effect]:
        """Who is there already (name → of this machine): until they have answered nothing is ours."""
        self.died_at = now  # Perhaps somebody did, long enough ago that his key is gone.
        if not others:
            return []
        self._based = False
        self._chain = [View(frozenset(others))]
        for name, local in others.items():
            self.peers[name] = Peer(local=local, known=True)
        return self._look(now)

    def known(self, name: str, now: float, *, local: bool = True) -> list[Effect]:
        """Its key stands, or it has greeted us."""
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(local=local)
        peer.known = True
        return self._look(now)

    def unknown(self, name: str, now: float) -> list[Effect]:
        """Its key is gone. With its connection standing it is still there."""
        peer = self.peers.get(name)
        if peer is None:
            return []
        peer.known = False
        effects = self._look(now)
        if not peer.up:
            self.peers.pop(name, None)
        return effects

    def up(self, name: str) -> list[Effect]:
        """It can be spoken to (anew)."""
        peer = self.peers.get(name)
        if peer is None or peer.dead or name not in self.view.members:
            return []
        peer.up = True
        return [self._ask_anew(name, peer)]

    def lost(self, name: str, now: float) -> list[Effect]:
        """The connection to it ended, or it refuses one."""
        peer = self.peers.get(name)
        if peer is None:
            return []
        peer.up = peer.synced = peer.answered = False
        peer.its_adoption = -1
        peer.dead = peer.dead or peer.local
        effects: list[Effect] = [Forget(name), *self._look(now)]
        if not peer.known:
            self.peers.pop(name, None)
        return effects

    def leave(self, now: float) -> list[Effect]:
        """We are about to end: all that is ours becomes the others'."""
        self.leaving = True
        return self._look(now)

    def said(self, name: str, token: int, adoption: int, view: View, now: float) -> list[Effect]:
        """`name` has this view and wants to know what we hold."""
        peer = self.peers.get(name)
        if peer is None or peer.dead:
            return []
        effects: list[Effect] = []
        afresh = adoption != peer.its_adoption
        peer.its_token, peer.its_view, peer.its_adoption = token, view, adoption
        peer.leaving = name in view.leaving
        if afresh:
            peer.answered = False
            effects.append(Forget(name))
        effects += self._look(now)
        if afresh and not any(isinstance(each, Adopted) for each in effects) and peer.up:
            effects.append(self._ask_anew(name, peer))
        if view == self.view and peer.up:
            effects.append(Answer(name, token, not peer.answered))
            peer.answered = True
        return effects

    def answers(self, name: str, token: int) -> bool:
        """Whether an answer with `token` is the one that is waited for."""
        peer = self.peers.get(name)
        return peer is not None and name in self.view.members and token == peer.token

    def answer(self, name: str, token: int) -> list[Effect]:
        """`name` told what it holds (and was believed: `answers`)."""
        if not self.answers(name, token):
            return []
        self.peers[name].synced = True
        return self._agree()

    def tick(self, now: float) -> bool:
        """Whether time made something ours."""
        left = [grave for grave in self._graves if grave.until > now]
        changed = len(left) < len(self._graves)
        self._graves = left
        return changed

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _ask_anew(self, name: str, peer: Peer) -> Say:
        peer.token += 1
        peer.synced = False
        return Say(name, peer.token, self.adoption, self.view)

    def _look(self, now: float) -> list[Effect]:
        """Adopt the view that what is known gives, if it is another."""
        there = {name for name, peer in self.peers.items() if (peer.known and not peer.dead) or peer.up}
        leaving = {name for name in there if self.peers[name].leaving}
        if self.leaving:
            leaving.add(self.me)
        view = View(frozenset(there | {self.me}), frozenset(leaving))
        if view == self.view:
            return []
        gone = tuple(sorted(self.view.members - view.members))
        if gone:
            self.died_at = now
            self._graves.append(_Grave(now + ORPHAN_S, tuple(self._chain), self._based))
        self.view = view
        self._owners.clear()
        self.adoption += 1
        self.agreed = False
        if view not in self._chain:
            self._chain.append(view)
        effects: list[Effect] = [Adopted(gone)]
        for name in sorted(there):
            peer = self.peers[name]
            peer.answered = peer.synced = False
            if peer.up:
                effects.append(self._ask_anew(name, peer))
        return effects + self._agree()

    def _agree(self) -> list[Effect]:
        if self.agreed or not all(self.peers[name].synced for name in self.view.members if name != self.me):
            return []
        self.agreed = self._based = True
        self._chain = [self.view]
        return [Agreed()]


def _ruled(chain: "list[View] | tuple[View, ...]", based: bool, me: str, revision: RevisionKey) -> bool:
    return based and all(view.owner(revision) == me for view in chain)
