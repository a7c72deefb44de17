"""The coordinator's side of the membership protocol, as a machine: events in, actions out, no I/O.

It decides views, one ballot at a time, and keeps soft state only. What it decides in a flush comes
from the reports alone (verdict.py). A message that does not fit is answered or dropped with a
reason; nothing raises. docs/protocol.md is the contract.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from collect.membership.ballots import Recovery, Settling
from collect.membership.coordinator_state import TICK_S_MIN, Candidate, Phase, Settings
from collect.membership.events import (
    CoordinatorAction,
    CoordinatorEvent,
    PeerMessageReceived,
    SendFailed,
)
from collect.membership.flushing import Flushing
from collect.types import (
    Incarnation,
    epoch_number,
)
from collect.wire.messages import (
    CancelOp,
    Commit,
    Figures,
    Freeze,
    Hello,
    Installed,
    Join,
    Late,
    Leave,
    PeerMessage,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Refused,
    Report,
    Stale,
    Suspect,
    Unreachable,
    Welcome,
)

__all__ = ["Candidate", "Coordinator", "Phase", "Settings"]


class Coordinator(Flushing):
    """Decides the views of one group.

    The owner calls `on` for each message and for a Tick at `next_deadline_s`, performs the actions
    in order, and may read `view`, `phase` and `candidates`.
    """

    @property
    def next_deadline_s(self) -> float:
        """When the next Tick is due; inf while there is nothing to wait for."""
        deadlines = [self._mute_s(peer) for peer in self.candidates if not self._is_decided(peer)]
        resend_s = self._resend_period_s
        if self.phase not in (Phase.RECOVERING, Phase.FLUSHING):
            deadlines.append(self._flush_due_s)
        match self.phase:
            case Phase.RECOVERING:
                deadlines.append(self._recovery.deadline_s)
            case Phase.FLUSHING if self._flush:
                flush = self._flush
                deadlines.append(flush.sent_s + resend_s)
                deadlines.append(flush.started_s + self.settings.timeout_s)
                grace_s = flush.started_s + flush.grace_s(self.settings.timeout_s)
                if self._now_s < grace_s:
                    deadlines.append(grace_s)
            case Phase.PREPARING | Phase.SWITCHING if self._switch:
                deadlines.append(self._switch.sent_s + resend_s)
                if not self._switch.is_committed:
                    deadlines.append(self._switch.started_s + self.settings.timeout_s)
            case Phase.STEADY if not self._settling.is_done:
                deadlines.append(self._settling.sent_s + resend_s)
            case _:
                pass
        if self.phase is Phase.STEADY and self._settling.is_done:
            ready = [max(c.not_before_s, c.since_s + self._gather_s) for c in self._ripening()]
            deadlines += ready
        # The floor keeps a deadline that passes without effect from spinning the driver.
        return max(min(deadlines, default=inf), self._now_s + TICK_S_MIN)

    def on(self, event: CoordinatorEvent, now_s: float) -> list[CoordinatorAction]:
        """Take one event; the actions are to be performed in order."""
        self._now_s = max(now_s, self._now_s)
        if isinstance(event, PeerMessageReceived):
            self._on_message(event.message)
        elif isinstance(event, SendFailed):
            self._on_send_failed(event.incarnation)
        self._advance()
        actions, self._actions = self._actions, []
        return actions

    def _on_message(self, message: PeerMessage) -> None:
        sender = message.incarnation
        if sender in self._gone:
            self._send(sender, self._gone[sender])
            return
        self._heard_s[sender] = self._now_s
        if isinstance(message, Join):
            self._on_join(message)
        elif isinstance(message, Hello):
            self._on_hello(message)
        elif not self._is_known(sender):
            self._answer_stranger(message)
        else:
            self._note_heard(sender)
            handlers: dict[type[Any], Callable[[Any], None]] = {
                Ping: self._on_ping,
                Suspect: self._on_suspect,
                CancelOp: self._on_cancel,
                Report: self._on_report,
                Stale: self._on_stale,
                Installed: self._on_installed,
                Prepared: self._on_prepared,
                Late: self._on_late,
                Unreachable: self._on_unreachable,
                Leave: self._on_leave,
                Figures: self._on_figures,
            }
            # What is still to be said to a recovered coordinator, peers say again.
            if self.phase is not Phase.RECOVERING or isinstance(message, Ping):
                handlers[type(message)](message)

    def _is_known(self, peer: Incarnation) -> bool:
        if self.phase is Phase.RECOVERING:
            return peer in self._recovery.hellos or peer in self.candidates
        return peer in self.candidates or peer in self._involved()

    def _note_heard(self, sender: Incarnation) -> None:
        if self._flush:
            self._flush.alive.add(sender)
        if sender in self.candidates:
            self.candidates[sender].heard_s = self._now_s

    def _answer_stranger(self, message: PeerMessage) -> None:
        """A member of an earlier epoch is out; a joiner, or a lost coordinator's, is asked."""
        sender = message.incarnation
        epoch = message.epoch if isinstance(message, Ping | Suspect | Leave | Report) else 0
        if epoch and self.view and self.phase is not Phase.RECOVERING:
            self._fence(sender, f"the group went on to epoch {epoch_number(self.view.epoch)}")
        else:
            self._ask_who(sender)

    def _on_join(self, message: Join) -> None:
        peer = message.incarnation
        is_member = self.view is not None and peer in self.view
        if not is_member:
            if reason := self._why_refused(message):
                self._log(f"{message.member.name} is refused: {reason}")
                self._send(peer, Refused(reason))
                return
            self._add_candidate(message)
        if self.phase is Phase.RECOVERING:
            return  # which key the group has is not known yet; the joiner asks again
        settings = self.settings
        welcome = Welcome(settings.generation, settings.scope, self._group_key, settings.timeout_s)
        self._send(peer, welcome)

    def _on_hello(self, message: Hello) -> None:
        peer = message.incarnation
        has_view = message.view is not None and message.view.epoch == message.epoch
        if bool(message.epoch) != has_view or has_view != (message.switch is not None):
            self._log(f"HELLO of {message.join.member.name} contradicts itself")
            return
        self._boundaries[peer] = message.boundaries
        self._note_counter(message.promised)
        is_formed = self.view is not None or self.phase in (Phase.SWITCHING, Phase.FLUSHING)
        if self.phase is not Phase.RECOVERING and message.view and not is_formed:
            self._recover_after_all()
        if self.phase is Phase.RECOVERING:
            if message.epoch and not self._recovery.may_be_member(peer):
                self._fence(peer, "it was left out of the group while nobody could tell it")
                return
            self._recovery.hellos[peer] = message
            self._on_join(message.join)
            return
        if self._flush and peer in self._flush.targets:
            self._flush.alive.add(peer)
            if message.prepared:
                self._views.setdefault(message.prepared.epoch, message.prepared)
            if message.view:
                self._views[message.view.epoch] = message.view
            if peer in self._flush.missing:
                self._send(peer, Freeze(self._flush.ballot, self._flush.reason))
        if message.epoch == 0:
            self._on_join(message.join)
        elif peer not in self._involved() and self.view:
            self._fence(peer, f"the group went on to epoch {epoch_number(self.view.epoch)}")

    def _on_ping(self, message: Ping) -> None:
        peer = message.incarnation
        self._boundaries[peer] = max(message.boundaries, self._boundaries.get(peer, 0))
        epoch = self.view.epoch if self.view else 0
        self._send(peer, Pong(self.settings.generation, epoch))

    def _on_stale(self, message: Stale) -> None:
        self._note_counter(message.promised)
        name = self._name(message.incarnation)
        reason = f"{name} has promised ballot {epoch_number(message.promised)}"
        if self._flush and message.ballot == self._flush.ballot:
            self._start_flush(reason)
        elif self._is_preparing(message.ballot):
            self._abandon(reason)

    def _on_installed(self, message: Installed) -> None:
        peer, ballot = message.incarnation, message.ballot
        self._boundaries[peer] = max(message.boundaries, self._boundaries.get(peer, 0))
        if self._switch and self._switch.is_committed and ballot == self._switch.view.epoch:
            self._switch.passed.add(peer)
            if self._flush is None:  # else the reports tell
                self._finish_switch_if_passed()
            return
        if self.view and ballot == self.view.epoch:
            self._settling.installs.pop(peer, None)
        if self._last_switch and ballot == self._last_switch.ballot:
            self._settling.unpassed.discard(peer)

    def _advance(self) -> None:
        """Do whatever is due. Each step leaves the machine in a state that the next can judge."""
        if self.phase is Phase.RECOVERING:
            self._finish_recovery_if_due()
        if self.phase is Phase.FLUSHING:
            self._finish_flush_if_due()
        self._drop_mute_candidates()
        if self.phase is Phase.PREPARING:
            self._time_out_preparation()
        if self.phase not in (Phase.RECOVERING, Phase.FLUSHING):
            self._start_flush_if_due()
        if self.phase is Phase.STEADY and self._settling.is_done:
            self._start_switch_if_due()
        self._send_again()

    def _send_again(self) -> None:
        """Messages get lost with connections; what is unanswered is repeated."""
        period_s = self._resend_period_s
        flush, switch, settling = self._flush, self._switch, self._settling
        if flush and self._now_s >= flush.sent_s + period_s:
            flush.sent_s = self._now_s
            self._send_all(flush.missing, Freeze(flush.ballot, flush.reason))
        elif switch and self._now_s >= switch.sent_s + period_s:
            switch.sent_s = self._now_s
            if switch.is_committed:
                self._send_all(switch.olds - switch.passed, Commit(switch.view.epoch))
            else:
                self._send_all(switch.missing, Prepare(switch.view, switch.mark))
        elif not settling.is_done and self._now_s >= settling.sent_s + period_s:
            settling.sent_s = self._now_s
            for peer, install in settling.installs.items():
                self._send(peer, install)
            if self._last_switch:
                late = settling.unpassed - settling.installs.keys()
                self._send_all(sorted(late), Commit(self._last_switch.ballot))
            self._tell_awaited()

    def _tell_awaited(self) -> None:
        settling = self._settling
        if self._now_s - max(settling.since_s, settling.told_s) < self.settings.timeout_s:
            return
        settling.told_s = self._now_s
        waited_s = self._now_s - settling.since_s
        for what, peers in (
            ("install the view", settling.installs.keys()),
            ("reach the boundary of the last switch", settling.unpassed),
        ):
            if peers:
                names = ", ".join(self._name(peer) for peer in peers)
                self._log(f"waiting for {waited_s:.1f} s for {names} to {what}")

    def _recover_after_all(self) -> None:
        """Started as the first, but there are members: whoever started us was wrong."""
        if self.phase is Phase.PREPARING:
            self._abandon("there are members of an earlier coordinator")
        self._enter(Phase.RECOVERING)
        deadline_s = self._now_s + self.settings.timeout_s
        self._recovery = Recovery(deadline_s, self.settings.last_view)

    def _finish_recovery_if_due(self) -> None:
        recovery = self._recovery
        view = recovery.highest
        if not recovery.is_complete() and self._now_s < recovery.deadline_s:
            return
        self._enter(Phase.STEADY)
        if view is None:
            self._log("no members of an earlier coordinator")
            return
        self.view = view
        self._views = recovery.views()
        self._group_key = view.group_key
        hellos = recovery.hellos
        self._admit = hellos[next(p for p in view.incarnations if p in hellos)].join.admit
        for peer, hello in hellos.items():
            if hello.epoch or peer in view:
                self.candidates.pop(peer, None)
            if hello.epoch and not any(peer in each for each in self._views.values()):
                self._fence(peer, f"the group went on to epoch {epoch_number(view.epoch)}")
        for peer in view.incarnations:
            if not recovery.may_be_member(peer):
                self._fence(peer, "it was left out of the group while nobody could tell it")
        marks = [hello.switch for hello in hellos.values() if hello.switch]
        self._last_switch = max(marks, key=lambda mark: mark.ballot)
        if not recovery.is_undisturbed():
            # Whoever is in an older view only was left out of the highest, for good.
            newest = [each for number, each in self._views.items() if number >= view.epoch]
            others = [p for each in newest for p in each.incarnations if recovery.may_be_member(p)]
            self._start_flush("the coordinator restarted in the middle of a change", others)
            return
        unpassed = {peer for peer in view.incarnations if not hellos[peer].is_passed}
        self._settling = Settling(since_s=self._now_s, unpassed=unpassed)
        self._log(f"adopted epoch {epoch_number(view.epoch)} of {len(view.members)} members")
