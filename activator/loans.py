"""Slots lent to other workers of the front door, and borrowed from them: keeps `Ownership` and every throttler in step.

A revision's owner keeps the one line in which its requests stand, whichever worker they came to, and lends slots one by one:

    worker: Ask ─▶ owner: in line … ─▶ Grant ─▶ worker: dials the instance itself ─▶ keeps the slot, or Return

A slot is with one worker at any time; the one who has it uses it for one request at a time. While nobody waits at the owner it is
kept, and the next request of that worker needs no word with anybody; `Recall` asks for it when somebody waits. Revisions without
a limit need none of this. No I/O: words go out by `send`, what throttlers decide is done by `perform`, time comes in as `now`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from activator import shares
from activator.balance import Target
from activator.borrowing import Borrowing, Perform, Send
from activator.breaker import Waiter
from activator.orphans import LINGER_MOST_S, Orphans
from activator.ownership import Adopted, Agreed, Answer, Forget, Ownership, Say, View
from activator.ownership import Effect as OwnershipEffect
from activator.throttler import Throttler
from activator.wire import Ask, Cancel, Grant, Held, Hello, Holding, MyView, Recall, Return, Word
from store.model import Instance, RevisionKey

Made = Callable[[RevisionKey, int | None], Throttler[Any]]
"""`Admitter.throttler`."""


@dataclass(slots=True)
class _Loan:
    """What one peer holds of one instance; `target` is None until the revision is ruled here."""

    held: Held
    slots: int
    target: Target | None = None


@dataclass(slots=True)
class _Account:
    """One peer's loans, its requests in our lines, and whom it was told to return all to."""

    loans: dict[RevisionKey, dict[str, _Loan]] = field(default_factory=dict)
    asks: dict[int, tuple[Throttler[Any], Waiter[Any]]] = field(default_factory=dict)
    early: dict[int, tuple[float, Ask]] = field(default_factory=dict)
    """What it asked while we could not lend: since when, and what."""
    recalled: set[RevisionKey] = field(default_factory=set)


class _Foreign:
    """A peer's request in our line."""

    __slots__ = ("_loans", "_number", "_peer", "_throttler")

    def __init__(self, loans: "Loans", peer: str, throttler: Throttler[Any], number: int) -> None:
        self._loans = loans
        self._peer = peer
        self._throttler = throttler
        self._number = number

    def dispatched(self, target: Target, waited_s: float) -> None:
        self._loans.lend(self._peer, self._throttler, self._number, target)

    def refused(self, reason: str, message: str, retry_after_s: float) -> None:
        raise AssertionError("a foreign request is refused where it came from")


def _nobody(peer: str, word: Word) -> None:
    raise AssertionError(f"alone, but {word} goes to {peer}")


class Loans:
    """One worker's. Alone it rules everything and says nothing."""

    def __init__(self, me: str, throttler: Made, perform: Perform) -> None:
        self.ownership = Ownership(me)
        self.orphans = Orphans()
        self.send: Send = _nobody
        """Set with whom there is to speak to."""
        self._throttler = throttler
        self._perform = perform
        self._accounts: dict[str, _Account] = {}
        self._limited: dict[RevisionKey, Throttler[Any]] = {}
        """Throttlers that have a limit."""
        self.borrowing = Borrowing(self.ownership, self._limited, perform, self._say)

    # -- what the admitter tells ----------------------------------------------------------------------------------------------

    def limited(self, throttler: Throttler[Any], now: float) -> None:
        """The revision is known to have a limit, perhaps just now: is it ours to rule?"""
        if throttler.revision not in self._limited:
            self._limited[throttler.revision] = throttler
            if self._wary(now):
                # It was never looked at: what dead workers left behind counts before anything is given out.
                self._perform(throttler, shares.cede(throttler, now))
        self._settle(throttler, now)

    def forgotten(self, revision: RevisionKey) -> None:
        self._limited.pop(revision, None)
        self.ownership.forget(revision)

    def waiting(self, throttler: Throttler[Any], waiter: Waiter[Any], now: float) -> None:
        """A request of ours stands in line."""
        if throttler.ruled:
            self._recall(throttler)
        else:
            self.borrowing.ask(throttler, (waiter,), now)

    def beat(self, throttler: Throttler[Any]) -> None:
        """Once a second: a revision that nobody called in that time needs nothing borrowed."""
        if not throttler.ruled and throttler.quiet and not throttler.line.waiting:
            self.borrowing.give_back(throttler, everything=True)

    def met(self, throttler: Throttler[Any], news: Instance, now: float) -> None:
        """An instance is about to be heard of for the first time: by others perhaps earlier, and by one who has died since."""
        if not throttler.limit or not throttler.ruled or news.instance in throttler.targets or not self._wary(now):
            return
        for held in self.orphans.at(throttler, (Target(news.instance, news.node, news.address, 0),)):
            self.orphans.found(throttler, shares.lend(throttler, held), held.slots, now)

    def tick(self, now: float) -> None:
        """Time passed: every 50 ms while `restless`."""
        if self.ownership.tick(now):
            self._settle_all(now)
        if self.orphans:
            for throttler, target, slots in self.orphans.ended(now):
                self._perform(throttler, shares.returned(throttler, target, slots, now))
        self.borrowing.tick(now)

    @property
    def restless(self) -> bool:
        return bool(self.orphans) or self.ownership.resting

    # -- what is known of others ----------------------------------------------------------------------------------------------

    def start(self, others: dict[str, bool], now: float) -> None:
        self._do(self.ownership.start(others, now), now)

    def known(self, peer: str, now: float, *, local: bool) -> None:
        self._do(self.ownership.known(peer, now, local=local), now)

    def unknown(self, peer: str, now: float) -> None:
        self._do(self.ownership.unknown(peer, now), now)

    def up(self, peer: str, now: float) -> None:
        self._do(self.ownership.up(peer), now)

    def lost(self, peer: str, now: float) -> None:
        self._do(self.ownership.lost(peer, now), now)

    def leave(self, now: float) -> None:
        self._do(self.ownership.leave(now), now)

    def told(self, peer: str, word: Word, now: float) -> None:
        """`peer` says `word`."""
        if isinstance(word, Ask):
            self._asked_by(peer, word, now)
        elif isinstance(word, Grant):
            self.borrowing.granted(peer, word, now)
        elif isinstance(word, Return):
            self._returned(peer, word, now)
        elif isinstance(word, Cancel):
            self._cancelled(peer, word, now)
        elif isinstance(word, Recall):
            self.borrowing.recalled(peer, word)
        elif isinstance(word, MyView):
            view = View(frozenset(word.members), frozenset(word.leaving))
            self._do(self.ownership.said(peer, word.token, word.adoption, view, now), now)
        elif isinstance(word, Holding):
            self._holding(peer, word, now)
        else:
            assert isinstance(word, Hello), word

    # -- as an owner ----------------------------------------------------------------------------------------------------------

    def lend(self, peer: str, throttler: Throttler[Any], number: int, target: Target) -> None:
        """`peer`'s request `number` is next: a slot at `target`, counted already, is its from now on."""
        account = self._account(peer)
        account.asks.pop(number, None)
        held = Held(throttler.revision, throttler.limit, target.instance, target.node, target.address, 1)
        loans = account.loans.setdefault(throttler.revision, {})
        loan = loans.get(target.instance)
        if loan is None:
            loan = loans[target.instance] = _Loan(held, 0, target)
        loan.slots += 1
        keep = not throttler.line.waiting
        (account.recalled.discard if keep else account.recalled.add)(throttler.revision)
        self.send(peer, Grant(number, held, keep))

    def _asked_by(self, peer: str, word: Ask, now: float) -> None:
        if self.ownership.owner(word.revision) != self.ownership.me:
            return  # It sees another view than we do, and asks again when that is over.
        throttler = self._limited.get(word.revision) or self._throttler(word.revision, word.limit)
        if throttler.ruled and self.ownership.synced(peer):
            self._stand_in(peer, word, now - word.age_s, now)
        else:
            self._account(peer).early[word.number] = (now - word.age_s, word)

    def _stand_in(self, peer: str, word: Ask, since: float, now: float) -> None:
        throttler = self._limited[word.revision]
        foreign = _Foreign(self, peer, throttler, word.number)
        waiter, effects = throttler.stand_in(foreign, since, now + word.most_s, now)
        if waiter.waiting:
            self._account(peer).asks[word.number] = (throttler, waiter)
        self._perform(throttler, effects)
        if waiter.waiting:
            self._recall(throttler)

    def _let_in(self, now: float) -> None:
        """Who asked too early may stand in line if we can lend by now."""
        for peer, account in self._accounts.items():
            if account.early and self.ownership.synced(peer):
                for number, (since, word) in list(account.early.items()):
                    ruled = self._throttler(word.revision, word.limit).ruled
                    if ruled and account.early.pop(number, None) is not None:
                        self._stand_in(peer, word, since, now)

    def _cancelled(self, peer: str, word: Cancel, now: float) -> None:
        self._account(peer).early.pop(word.number, None)
        found = self._account(peer).asks.pop(word.number, None)
        if found is not None:
            found[0].leave(found[1], now)

    def _recall(self, throttler: Throttler[Any]) -> None:
        """Somebody waits here: what is lent and not in use comes back."""
        if not throttler.limit:
            return
        for peer, account in self._accounts.items():
            if throttler.revision not in account.recalled and account.loans.get(throttler.revision):
                account.recalled.add(throttler.revision)
                self.send(peer, Recall(throttler.revision))

    def _returned(self, peer: str, word: Return, now: float) -> None:
        loans = self._account(peer).loans.get(word.revision, {})
        loan = loans.get(word.instance)
        if loan is None:
            return  # Of a time when it was lent from here: since then its holder has told all that it holds.
        slots = min(word.slots, loan.slots)
        loan.slots -= slots
        if not loan.slots:
            del loans[word.instance]
        throttler = self._limited.get(word.revision)
        if loan.target is not None and throttler is not None:
            self._perform(throttler, shares.returned(throttler, loan.target, slots, now))

    def _holding(self, peer: str, word: Holding, now: float) -> None:
        """All that `peer` holds of ours; what it held before and has not now is free."""
        if not self.ownership.answers(peer, word.token):
            return
        account = self._account(peer)
        account.recalled.clear()
        old, account.loans = account.loans, {}
        for held in word.held:
            loan = account.loans.setdefault(held.revision, {})[held.instance] = _Loan(held, held.slots)
            before = old.get(held.revision, {}).pop(held.instance, None)
            self._compare(loan, before, now)
        for revision, loans in old.items():
            for loan in loans.values():
                if loan.target is not None:
                    self._perform(
                        self._limited[revision], shares.returned(self._limited[revision], loan.target, loan.slots, now)
                    )
        self._do(self.ownership.answer(peer, word.token), now)
        self._let_in(now)

    def _compare(self, loan: _Loan, before: _Loan | None, now: float) -> None:
        """Count what a peer says it holds, in place of what was known of it."""
        throttler = self._throttler(loan.held.revision, loan.held.limit)
        if not throttler.ruled:
            return
        if before is None or before.target is None:
            loan.target = shares.lend(throttler, loan.held)
            return
        loan.target = before.target
        if loan.slots > before.slots:
            shares.lend(throttler, structs.replace(loan.held, slots=loan.slots - before.slots))
        elif loan.slots < before.slots:
            self._perform(throttler, shares.returned(throttler, loan.target, before.slots - loan.slots, now))

    # -- as ownership moves ---------------------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[OwnershipEffect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self.send(
                    effect.peer,
                    MyView(effect.token, effect.adoption, tuple(effect.view.members), tuple(effect.view.leaving)),
                )
            elif isinstance(effect, Answer):
                self.borrowing.answer(effect, now)
            elif isinstance(effect, Forget):
                self._drop_asks(effect.peer, now)
            elif isinstance(effect, Adopted):
                self._adopted(effect, now)
            elif isinstance(effect, Agreed):
                self._settle_all(now)

    def _adopted(self, effect: Adopted, now: float) -> None:
        for peer in self._accounts:
            self._drop_asks(peer, now)
        for throttler in self._limited.values():
            self.borrowing.void(throttler)
        self._settle_all(now)
        for peer in effect.gone:
            account = self._accounts.pop(peer, _Account())
            for revision, loans in account.loans.items():
                for loan in loans.values():
                    if loan.target is not None:
                        self.orphans.lent(self._limited[revision], loan.target, loan.slots, now)

    def _settle_all(self, now: float) -> None:
        for throttler in list(self._limited.values()):
            self._settle(throttler, now)

    def _settle(self, throttler: Throttler[Any], now: float) -> None:
        """Rule `throttler`'s revision, or cease to, as ownership says."""
        revision = throttler.revision
        rules = not throttler.limit or self.ownership.rules(revision)
        if rules == throttler.ruled:
            return
        if not rules:
            for account in self._accounts.values():
                told = account.loans.get(revision, {})
                account.loans[revision] = {name: loan for name, loan in told.items() if loan.target is None}
            self.orphans.forget(throttler)
            self._perform(throttler, shares.cede(throttler, now))
            return
        self.borrowing.void(throttler)
        left = self.orphans.at(throttler, throttler.targets.values()) if self._wary(now) else []
        loans = [loan for account in self._accounts.values() for loan in account.loans.get(revision, {}).values()]
        lent = [structs.replace(loan.held, slots=loan.slots) for loan in loans if loan.slots]
        effects = shares.rule(throttler, [*lent, *left], now)
        for loan in loans:
            loan.target = throttler.targets[loan.held.instance]
        for held in left:
            self.orphans.found(throttler, throttler.targets[held.instance], held.slots, now)
        self._perform(throttler, effects)
        self._let_in(now)

    def _drop_asks(self, peer: str, now: float) -> None:
        account = self._accounts.get(peer)
        if account is not None:
            for throttler, waiter in account.asks.values():
                throttler.leave(waiter, now)
            account.asks.clear()
            account.early.clear()

    def _wary(self, now: float) -> bool:
        """Whether somebody may have died who has left requests behind."""
        return now - self.ownership.died_at < LINGER_MOST_S

    def _say(self, peer: str, word: Word) -> None:
        self.send(peer, word)

    def _account(self, peer: str) -> _Account:
        return self._accounts.setdefault(peer, _Account())
