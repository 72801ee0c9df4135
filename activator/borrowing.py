"""One worker as a borrower: asks the owners of revisions for slots, in the order of its own lines, and returns what it has no use for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from activator import shares
from activator.breaker import Waiter
from activator.effects import Effect, Spare
from activator.ownership import Answer, Ownership
from activator.throttler import Throttler
from activator.wire import Ask, Cancel, Grant, Holding, Recall, Return, Word
from store.model import RevisionKey

Perform = Callable[[Throttler[Any], Sequence[Effect[Any]]], None]
Send = Callable[[str, Word], None]


class Borrowing:
    """`limited` are the throttlers of all revisions with a limit; those that are not ruled here are meant."""

    def __init__(self, ownership: Ownership, limited: dict[RevisionKey, Throttler[Any]], perform: Perform, send: Send) -> None:
        self._ownership = ownership
        self._limited = limited
        self._perform = perform
        self._send = send
        self._asked: dict[RevisionKey, dict[int, Waiter[Any]]] = {}
        self._number = 0

    def ask(self, throttler: Throttler[Any], waiters: Iterable[Waiter[Any]], now: float) -> None:
        """Have a place kept for each of `waiters` that has none."""
        revision = throttler.revision
        asked = self._asked.setdefault(revision, {})
        owner = self._ownership.owner(revision)
        if not self._ownership.may_ask(owner):
            return
        for waiter in waiters:
            if not waiter.ask:
                self._number += 1
                waiter.ask = self._number
                asked[waiter.ask] = waiter
                word = Ask(revision, throttler.limit, waiter.ask, now - waiter.since, waiter.deadline - now + 1)
                self._send(owner, word)

    def left(self, throttler: Throttler[Any], waiter: Waiter[Any]) -> None:
        """A request of ours has left the line by itself."""
        if waiter.ask and self._asked.get(throttler.revision, {}).pop(waiter.ask, None) is not None:
            self._to_owner(throttler.revision, Cancel(throttler.revision, waiter.ask))

    def performed(self, throttler: Throttler[Any]) -> None:
        """Effects were carried out: who was served needs no place any more."""
        asked = self._asked.get(throttler.revision)
        while asked:
            number, waiter = next(iter(asked.items()))
            if waiter.waiting:
                break
            del asked[number]
            self._to_owner(throttler.revision, Cancel(throttler.revision, number))

    def granted(self, peer: str, word: Grant, now: float) -> None:
        """A slot for who is next here. From somebody who is no owner in our eyes it is not taken: we have told, or will, what we hold."""
        held = word.held
        throttler = self._limited.get(held.revision)
        if throttler is None or throttler.ruled or self._ownership.owner(held.revision) != peer:
            self._send(peer, Return(held.revision, held.instance, held.slots))
            return
        waiter = self._asked.get(held.revision, {}).pop(word.number, None)
        if waiter is not None:
            waiter.ask = 0
        self._perform(throttler, shares.granted(throttler, held, word.keep, now))
        self.give_back(throttler)

    def recalled(self, peer: str, word: Recall) -> None:
        throttler = self._limited.get(word.revision)
        if throttler is not None and not throttler.ruled and self._ownership.owner(word.revision) == peer:
            throttler.recalled = True
            self.give_back(throttler)

    def give_back(self, throttler: Throttler[Any], *, everything: bool = False) -> None:
        """Return what is of no use; while the owner cannot be told it stays ours, and is told with all else."""
        if not throttler.ruled and self._ownership.may_ask(self._ownership.owner(throttler.revision)):
            self._perform(throttler, shares.spare(throttler, everything=everything))

    def spare(self, throttler: Throttler[Any], effect: Spare) -> None:
        """Slots that we had borrowed are free. An owner that cannot be told hears later what we hold, and these are not among it."""
        self._to_owner(throttler.revision, Return(throttler.revision, effect.instance, effect.slots))

    def answer(self, effect: Answer, now: float) -> None:
        """Tell a peer what we hold of its slots, and ask it for what we wait for."""
        owner = self._ownership.owner
        mine = [each for key, each in self._limited.items() if not each.ruled and owner(key) == effect.peer]
        for throttler in mine:
            throttler.recalled = False
        held = [held for throttler in mine for held in shares.shares(throttler)]
        self._send(effect.peer, Holding(effect.token, tuple(held)))
        for throttler in mine:
            if effect.afresh:
                self.void(throttler)
            self.give_back(throttler)
            self.ask(throttler, throttler.line.own(), now)

    def void(self, throttler: Throttler[Any]) -> None:
        """Nobody keeps places for who waits in this line."""
        self._asked.pop(throttler.revision, None)
        for waiter in throttler.line.own():
            waiter.ask = 0

    def tick(self, now: float) -> None:
        """Who waits without a place, because what was granted for him was of no use, asks again."""
        for revision in list(self._asked):
            throttler = self._limited.get(revision)
            if throttler is None or throttler.ruled:
                del self._asked[revision]
            elif len(self._asked[revision]) < throttler.line.waiting:
                self.ask(throttler, throttler.line.own(), now)

    def _to_owner(self, revision: RevisionKey, word: Word) -> None:
        owner = self._ownership.owner(revision)
        if self._ownership.may_ask(owner):
            self._send(owner, word)
