"""The coordinator lets newcomers in: PREPARE, COMMIT, ABANDON (docs/protocol.md section 4)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from collect.membership.ballots import Settling, Switch
from collect.membership.coordinator_state import (
    DIALS_MAX,
    MARGIN_MAX,
    Candidate,
    CoordinatorState,
    Phase,
)
from collect.membership.planning import GAIN_MIN, gain
from collect.types import (
    ALGORITHM_AUTO,
    LOOPBACK,
    MEMBERS_MAX,
    TRANSPORT_AUTO,
    Ballot,
    Incarnation,
    LinkLoss,
    Recipe,
    SwitchMark,
    View,
    epoch_number,
)
from collect.wire.messages import (
    Abandon,
    Commit,
    Figures,
    Join,
    Late,
    Prepare,
    Prepared,
    Refused,
    Unreachable,
)


class Switching(CoordinatorState):
    """One switch at a time, begun when everybody has confirmed the view before it."""

    def _why_refused(self, message: Join) -> str:
        if message.group != self.settings.group:
            return f"this is group {self.settings.group!r}, not {message.group!r}"
        if self._admit is not None and message.admit is not self._admit:
            ours, theirs = self._admit.name.lower(), message.admit.name.lower()
            return f"the group admits newcomers in mode {ours}, not {theirs}"
        members = len(self.view.members) if self.view else 0
        if members + len(self.candidates) >= MEMBERS_MAX:
            return f"the group has {MEMBERS_MAX} members and candidates, the most it can"
        return ""

    def _add_candidate(self, join: Join) -> None:
        if join.incarnation not in self.candidates:
            self._admit = join.admit
            self.candidates[join.incarnation] = Candidate(join, self._now_s, self._now_s)
        self.candidates[join.incarnation].heard_s = self._now_s

    def _is_preparing(self, ballot: Ballot) -> bool:
        switch = self._switch
        return switch is not None and not switch.is_committed and ballot == switch.view.epoch

    def _on_prepared(self, message: Prepared) -> None:
        switch = self._switch
        if switch is None or not self._is_preparing(message.ballot):
            self._abandon_again(message)
            return
        switch.prepared.add(message.incarnation)
        if not switch.missing:
            self._commit(switch)

    def _abandon_again(self, message: Prepared) -> None:
        """Whoever still says that it is prepared for a switch that is over has missed ABANDON."""
        marks = [self._switch.mark if self._switch else None, self._last_switch]
        is_known = any(mark and mark.ballot == message.ballot for mark in marks)
        if self._flush is None and not is_known:
            self._send(message.incarnation, Abandon(message.ballot, "the switch is over"))

    def _on_late(self, message: Late) -> None:
        peer, switch = message.incarnation, self._switch
        self._boundaries[peer] = max(message.boundaries, self._boundaries.get(peer, 0))
        if switch is None or not self._is_preparing(message.ballot):
            return
        # The member ran past the proposal while it travelled: propose ahead by twice as much.
        overrun = message.boundaries - switch.mark.boundary
        self._margin = min(max(2 * self._margin, 2 * overrun + 1), MARGIN_MAX)
        self._log(f"{self._name(peer)} has passed boundary {message.boundaries} already")
        newcomers = [c for p, c in self.candidates.items() if p in switch.mark.newcomers]
        if newcomers or not switch.mark.newcomers:
            self._start_switch(newcomers)
        else:
            self._abandon("nobody is left to be let in")

    def _on_unreachable(self, message: Unreachable) -> None:
        peer, switch = message.incarnation, self._switch
        whom = ", ".join(self._name(each) for each in message.whom)
        reason = f"{self._name(peer)} cannot reach {whom}: {message.detail}"
        if self._flush:
            for each in message.whom:
                self._flush.add_suspicion(peer, each, LinkLoss.UNREACHABLE)
        elif switch is None or message.ballot != switch.view.epoch:
            self._log(f"{reason}; out of date")
        elif switch.is_committed:
            self._ask_flush(reason)
        else:
            self._abandon(reason)
            recent_s = self._now_s - self.settings.timeout_s / 2
            silent = [p for p in message.whom if self._heard_s.get(p, -inf) < recent_s]
            if any(each in switch.olds and self._is_mute(each) for each in silent):
                self._ask_flush(reason)
            for each in [p for p in silent if p in self.candidates] or [peer]:
                self._postpone(each, reason, is_counted=not silent)

    def _on_send_failed(self, peer: Incarnation) -> None:
        """A newcomer without a connection would hold the members at the boundary for nothing. If it
        lives it asks again; of a member the links tell."""
        if self.phase is not Phase.PREPARING or peer not in self.candidates:
            return
        if self._switch and peer in self._switch.mark.newcomers:
            self._abandon(f"{self._name(peer)} has no connection any more")
            del self.candidates[peer]

    def _postpone(self, peer: Incarnation, reason: str, *, is_counted: bool) -> None:
        """Try a candidate again later, or refuse it after as many attempts as make sense.

        What may be the fault of a member that is dead, and not yet missed, is not counted.
        """
        candidate = self.candidates.get(peer)
        if candidate is None:
            return
        candidate.dials_failed += is_counted
        if self._is_mute(peer):
            del self.candidates[peer]
        elif candidate.dials_failed >= DIALS_MAX:
            del self.candidates[peer]
            self._send(peer, Refused(reason))
        else:
            wait_s = self._resend_period_s * max(1, candidate.dials_failed)
            candidate.not_before_s = self._now_s + wait_s

    def _drop_mute_candidates(self) -> None:
        """One that has gone: its process may be dead. A living one joins again with HELLO."""
        for peer in [p for p in self.candidates if self._is_mute(p)]:
            if not self._is_decided(peer):
                self._log(f"{self._name(peer)} is not heard and no candidate any more")
                del self.candidates[peer]

    @property
    def _gather_s(self) -> float:
        return self.settings.settle_s

    def _ripening(self) -> list[Candidate]:
        """Those that could be let in; for the first view, enough of them, or none."""
        candidates = list(self.candidates.values())
        if self.view is None:
            needed = max((each.join.min_peers for each in candidates), default=1)
            return candidates if len(candidates) >= needed else []
        return candidates

    def _start_switch_if_due(self) -> None:
        ripe = [c for c in self._ripening() if self._now_s >= c.not_before_s]
        if not self.candidates and self._is_better_known():
            self._start_switch(())
            return
        if not ripe or self._now_s < min(c.since_s for c in ripe) + self._gather_s:
            return
        if self.view is None and len(ripe) < max(each.join.min_peers for each in ripe):
            return
        self._start_switch(ripe)

    def _on_figures(self, message: Figures) -> None:
        self._figures[message.incarnation] = {link.incarnation: link for link in message.links}
        self._has_news = True

    def _is_better_known(self) -> bool:
        """The members would be much faster with another recipe. Judged now and then: a switch costs
        a round trip."""
        patience_s = self.settings.plan_timeouts * self.settings.timeout_s
        if self.view is None or not self._has_news or self._now_s < self._planned_s + patience_s:
            return False
        self._has_news, self._planned_s = False, self._now_s
        return gain(self.view.members, self._figures, self.view.recipe) > GAIN_MIN

    def _start_switch(self, newcomers: Iterable[Candidate]) -> None:
        joined = sorted(newcomers, key=lambda c: (c.since_s, c.join.incarnation))
        olds = self.view.members if self.view else ()
        ballot = self._next_ballot()
        reached = max((self._boundaries.get(m.incarnation, 0) for m in olds), default=0)
        boundary = reached + self._margin if olds else 1
        members = olds + tuple(c.join.member for c in joined)
        recipe = self._recipe_for(members, self.view)
        if self.view is None:
            recipe = with_wishes(recipe, [each.join for each in joined])
        view = View(ballot, members, self._group_key, recipe)
        mark = SwitchMark(ballot, boundary, tuple(c.join.incarnation for c in joined))
        self._switch = Switch(
            view=view,
            mark=mark,
            olds=frozenset(member.incarnation for member in olds),
            started_s=self._now_s,
            sent_s=self._now_s,
        )
        if self.phase is not Phase.PREPARING:
            self._enter(Phase.PREPARING)
        names = ", ".join(c.join.member.name for c in joined)
        what = f"let in {names}" if joined else "another recipe"
        self._log(f"ballot {epoch_number(ballot)}: {what} at boundary {boundary}")
        self._send_all(view.incarnations, Prepare(view, mark))

    def _time_out_preparation(self) -> None:
        switch = self._switch
        if switch is None or self._now_s < switch.started_s + self.settings.timeout_s:
            return
        names = ", ".join(self._name(peer) for peer in switch.missing)
        reason = f"no answer to PREPARE from {names}"
        mute = [peer for peer in switch.missing if self._is_mute(peer)]
        self._abandon(reason)
        for peer in switch.missing:
            if peer in self.candidates:
                self._postpone(peer, reason, is_counted=True)
        if any(peer in switch.olds for peer in mute):
            self._ask_flush(reason)

    def _abandon(self, reason: str) -> None:
        switch = self._switch
        assert switch is not None
        assert not switch.is_committed
        self._switch = None
        self._enter(Phase.STEADY)
        self._log(f"ballot {epoch_number(switch.view.epoch)} is abandoned: {reason}")
        self._send_all(switch.view.incarnations, Abandon(switch.view.epoch, reason))

    def _commit(self, switch: Switch) -> None:
        """Members first: a newcomer must not run before the switch is sure to stand."""
        switch.is_committed = True
        switch.sent_s = self._now_s
        self._margin = 1
        self._views[switch.view.epoch] = switch.view
        self._remember(switch.view)
        self._enter(Phase.SWITCHING)
        olds = [m for m in switch.view.incarnations if m in switch.olds]
        self._send_all(olds, Commit(switch.view.epoch))
        self._finish_switch_if_passed()

    def _finish_switch_if_passed(self) -> None:
        switch = self._switch
        assert switch is not None
        if switch.olds - switch.passed:
            return
        self.view = switch.view
        self._views = {switch.view.epoch: switch.view}
        self._last_switch = switch.mark
        self._switch = None
        newcomers = switch.mark.newcomers
        for peer in newcomers:
            self.candidates.pop(peer, None)
        self._settling = Settling(self._now_s, self._now_s, 0.0, {}, set(newcomers))
        self._enter(Phase.STEADY)
        self._send_all(newcomers, Commit(switch.view.epoch))
        count = len(switch.view.members)
        self._log(f"epoch {epoch_number(switch.view.epoch)}: {count} members")


def with_wishes(recipe: Recipe, founders: Sequence[Join]) -> Recipe:
    """The first founder decides, where it has a wish; who comes later follows."""
    algorithms = [join.algorithm for join in founders if join.algorithm != ALGORITHM_AUTO]
    transports = [join.transport for join in founders if join.transport != TRANSPORT_AUTO]
    transport = next(iter(transports), recipe.transport)
    return replace(
        recipe,
        algorithm=next(iter(algorithms), recipe.algorithm),
        commit_bytes=founders[0].commit_bytes,
        transport=transport,
        local=recipe.local if transport == TRANSPORT_AUTO else LOOPBACK,
    )
