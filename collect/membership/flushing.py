"""The coordinator changes the view without warning: FREEZE, REPORT, INSTALL (section 3)."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from collect.membership.ballots import Flush, Settling
from collect.membership.coordinator_state import REDIALS_MAX, Phase
from collect.membership.switching import Switching
from collect.membership.verdict import Decision, decide
from collect.types import (
    DepartureKind,
    Incarnation,
    SwitchMark,
    View,
    epoch_number,
)
from collect.wire.messages import (
    Abandon,
    CancelOp,
    Freeze,
    Install,
    Leave,
    Left,
    Report,
    Suspect,
)


class Flushing(Switching):
    """Gathers the reports of a ballot and carries out what verdict.py decides from them."""

    def _on_suspect(self, message: Suspect) -> None:
        accuser, accused = message.incarnation, message.accused
        if self._flush:
            if accuser in self._flush.targets:
                self._flush.add_suspicion(accuser, accused, message.kind)
            return
        if accused not in self._involved() or message.epoch not in self._current_epochs():
            self._log(f"{self._name(accuser)} suspects {self._name(accused)}: out of date")
            return
        reason = f"{self._name(accuser)} lost {self._name(accused)}: {message.detail}"
        if self.phase is Phase.PREPARING and not (self.view and accused in self.view):
            self._abandon(reason)
            self._postpone(accused, reason, is_counted=False)
            return
        self._ask_flush(reason)

    def _on_cancel(self, message: CancelOp) -> None:
        if self._flush or message.epoch not in self._current_epochs():
            self._log(f"{self._name(message.incarnation)} cancels an operation: out of date")
            return
        self._wish = f"{self._name(message.incarnation)} cancelled: {message.detail}"

    def _on_leave(self, message: Leave) -> None:
        peer = message.incarnation
        candidate = self.candidates.pop(peer, None)
        if candidate and message.epoch == 0:
            self._remember_gone(peer, Left(0))
            if self.phase is Phase.PREPARING and self._switch and peer in self._switch.view:
                self._abandon(f"{candidate.join.member.name} left before it was let in")
            elif self._switch and peer in self._switch.view:
                self._ask_flush(f"{candidate.join.member.name} left before it was let in")
            return
        self._leaving.add(peer)
        self._wish = f"{self._name(peer)} leaves"

    def _on_report(self, message: Report) -> None:
        peer, flush = message.incarnation, self._flush
        self._boundaries[peer] = message.boundaries
        if flush is None and message.epoch and message.ballot not in self._current_epochs():
            self._note_counter(message.ballot)
            self._ask_flush(f"{self._name(peer)} is frozen for a ballot that nobody leads")
            return
        if flush is None or message.ballot != flush.ballot or peer not in flush.targets:
            self._log(f"{self._name(peer)} reports to ballot {epoch_number(message.ballot)}: over")
            return
        if message.epoch and message.epoch not in self._views:
            # Only its HELLO tells who is in that view; the report is sent again until we decide.
            self._ask_who(peer)
            return
        if message.epoch and (peer not in self._views[message.epoch] or message.switch is None):
            self._log(f"REPORT of {self._name(peer)} contradicts itself")
            return
        flush.add_report(message, self._now_s)

    def _start_flush_if_due(self) -> None:
        if self._now_s >= self._flush_due_s:
            self._start_flush(self._accused)
        elif self._wish and not self._settling.installs:
            self._start_flush(self._wish)
        elif self._is_deserted():
            self._start_flush("no member is heard of")

    def _is_deserted(self) -> bool:
        """Awaited members may all be dead, so that none is left to miss the others.

        While one lives it judges by its links: a member that is only mute here may be computing.
        """
        is_awaited = self._switch is not None or not self._settling.is_done
        if self.view is None or not is_awaited or self.phase is Phase.PREPARING:
            return False
        return all(self._is_mute(peer) for peer in self.view.incarnations)

    def _start_flush(self, reason: str, others: Iterable[Incarnation] = ()) -> None:
        """A ballot above all others, to everybody who may be in a view, or may yet install one."""
        targets = self._involved().union(others)
        earlier = self._flush
        if self.phase is Phase.PREPARING and self._switch:
            newcomers = self._switch.mark.newcomers
            self._abandon(reason)
            targets -= set(newcomers)
        self._flush = Flush(
            ballot=self._next_ballot(),
            reason=reason,
            started_s=self._now_s,
            settle_s=self.settings.settle_s,
            targets=frozenset(targets - self._gone.keys()),
            sent_s=self._now_s,
        )
        if earlier:
            self._flush.silent = {p: w for p, w in earlier.silent.items() if p not in earlier.alive}
            self._flush.evidence = earlier.evidence
        if self.phase is not Phase.FLUSHING:
            self._enter(Phase.FLUSHING)
        self._flush_due_s, self._accused, self._wish = inf, "", ""
        self._settling = Settling(since_s=self._now_s)
        self._log(f"ballot {epoch_number(self._flush.ballot)}: {reason}")
        self._send_all(self._flush.missing, Freeze(self._flush.ballot, reason))

    def _finish_flush_if_due(self) -> None:
        flush = self._flush
        assert flush is not None
        for peer, why in flush.give_up(self._now_s, self.settings.timeout_s).items():
            self._log(f"{self._name(peer)} is given up: {why}")
        if flush.missing:
            return
        reports = flush.evidenced_reports()
        decision = decide(reports, self._views, self._leaving, flush.silent)
        if victim := self._flapping(decision):
            del reports[victim]
            flush.silent[victim] = "its links break again and again"
            decision = decide(reports, self._views, self._leaving, flush.silent)
        self._carry_out(flush, reports, decision)

    def _flapping(self, decision: Decision) -> Incarnation:
        """A member whose link breaks as often as it is repaired, with nothing done meanwhile; 0."""
        if any(op > self._progress.get(scope, 0) for scope, op in decision.progress.items()):
            self._progress = dict(decision.progress)
            self._breaks.clear()
        for redial in decision.redials:
            pair = (redial.one, redial.other)
            self._breaks[pair] = self._breaks.get(pair, 0) + 1
            if self._breaks[pair] > REDIALS_MAX:
                del self._breaks[pair]
                return redial.other
        return 0

    def _carry_out(
        self, flush: Flush, reports: dict[Incarnation, Report], decision: Decision
    ) -> None:
        switch = self._switch
        self._flush = self._switch = None
        self._enter(Phase.STEADY)
        if switch and decision.switch != switch.mark:
            void = [peer for peer in switch.mark.newcomers if peer not in decision.members]
            self._send_all(void, Abandon(switch.view.epoch, flush.reason))
        self._dismiss(flush, reports, decision)
        self._last_switch = decision.switch
        if not decision.members or decision.base is None or decision.switch is None:
            self.view, self._views = None, {}
            self._leaving.clear()
            self._log("the group has no members any more")
            return
        base, mark = decision.base, decision.switch
        members = tuple(m for m in base.members if m.incarnation in decision.members)
        self.view = View(flush.ballot, members, base.group_key, self._recipe_for(members, base))
        # Until everybody confirms, a report may still name the epoch it comes from.
        self._views = {base.epoch: base, flush.ballot: self.view} | {
            epoch: view
            for epoch, view in self._views.items()
            if any(r.epoch == epoch for p, r in reports.items() if p in decision.members)
        }
        self._remember(self.view)
        install = Install(
            view=self.view,
            from_epoch=base.epoch,
            verdict=decision.verdict,
            repairs=decision.repairs,
            redials=decision.redials,
            departures=decision.departures,
            switch=mark,
            reason=f"{flush.reason}; {decision.reason}",
        )
        unpassed = {p for p in decision.members if not has_passed(reports[p], mark)}
        installs = {
            p: replace(install, scopes=decision.scopes.get(p, ())) for p in decision.members
        }
        self._settling = Settling(self._now_s, self._now_s, 0.0, installs, unpassed)
        for peer, its_install in installs.items():
            self._send(peer, its_install)
        self._log(f"epoch {epoch_number(flush.ballot)}: {len(members)} members; {decision.reason}")
        if decision.keeps_leavers:
            self._wish = "the others have what only those who leave had"

    def _dismiss(
        self, flush: Flush, reports: dict[Incarnation, Report], decision: Decision
    ) -> None:
        """Tell everybody who is not in the new view, now and whenever it is heard of again."""
        why = {gone.incarnation: gone for gone in decision.departures}
        for peer in sorted(flush.targets | why.keys()):
            if peer in decision.members:
                self.candidates.pop(peer, None)
                continue
            gone, report = why.get(peer), reports.get(peer)
            self._leaving.discard(peer)
            if gone and gone.kind is DepartureKind.LEFT:
                self._remember_gone(peer, Left(flush.ballot))
                self._send(peer, Left(flush.ballot))
            elif gone and peer not in self.candidates:
                self._fence(peer, f"epoch {epoch_number(flush.ballot)} without it: {gone.reason}")
            elif report is not None and report.epoch:
                self._fence(peer, f"epoch {epoch_number(flush.ballot)} is not of its past")
            elif report is None:
                self.candidates.pop(peer, None)  # asked again, should it be heard of


def has_passed(report: Report, mark: SwitchMark) -> bool:
    return report.switch is not None and report.is_passed and report.switch.ballot == mark.ballot
