"""The peer's side of the membership protocol, as a machine: events in, actions out, no I/O.

The owner calls `on` for each event, under one lock, and performs the actions in order. Rules are
those of docs/protocol.md. What the coordinator sends twice, late, or for another state is dropped
with a reason or answered again; nothing raises.
"""

from collections.abc import Callable
from typing import Any

from collect.membership.boundaries import Boundaries
from collect.membership.events import (
    AnnouncementKind,
    BoundaryAsked,
    CommFrozen,
    CommReport,
    FreezeComm,
    InstallComm,
    LeaveAsked,
    LinkLost,
    LinksFailed,
    LinksMeasured,
    LinksUp,
    Log,
    MessageReceived,
    OpCancelled,
    PeerAction,
    PeerEvent,
    RepairsDone,
    ScopeClosed,
    Send,
    Started,
    Tick,
)
from collect.membership.figures import is_news
from collect.membership.peer_state import Effect, PendingSwitch, State
from collect.types import (
    Ballot,
    Cancel,
    LinkFigures,
    Op,
    Outcome,
    Repair,
    ScopeId,
    ScopeVerdict,
    SwitchMark,
    Verdict,
    VerdictKind,
    epoch_number,
    op_base,
)
from collect.wire.messages import (
    Abandon,
    Commit,
    CoordinatorMessage,
    Fenced,
    Figures,
    Freeze,
    Hello,
    Install,
    Installed,
    Leave,
    Left,
    Ping,
    Pong,
    Prepare,
    Refused,
    Stale,
    Unreachable,
    Welcome,
    Who,
)

__all__ = ["Peer", "State"]


class Peer(Boundaries):
    """One process's membership in one group.

    The owner may read, under its lock: `state`, `view`, `switch`, `boundaries`, `boundaries_free`,
    `welcome`, `next_deadline_s`, `is_boundary_due`. It may pass boundaries up to `boundaries_free`
    at once, without an event: before the next event it adds them to `boundaries`, and from then on
    asks for `boundaries_free` anew.

    Args:
        join: what this process is; `incarnation` is fresh and random.
        timeout_s: until the coordinator's WELCOME tells the group's.
    """

    def on(self, event: PeerEvent, now_s: float) -> list[PeerAction]:
        """Take one event; the actions are to be performed in order."""
        self._now_s = max(now_s, self._now_s)
        if self.state in (State.FENCED, State.LEFT):
            return [Log(f"{type(event).__name__} ignored: this peer is {self.state.name}")]
        match event:
            case MessageReceived(message):
                return self._on_heard() + self._on_message(message)
            case Started():
                self._heard_s = self._pinged_s = self._now_s
                return [Send(self.join)]
            case Tick():
                return self._on_tick()
            case LinkLost():
                return self._on_link_lost(event)
            case LinksUp(ballot):
                return self._on_links_up(ballot)
            case LinksFailed(ballot, whom, detail):
                return self._on_links_failed(ballot, whom, detail)
            case CommFrozen(_, report):
                return self._on_comm_frozen(report)
            case RepairsDone(ballot, scope):
                return self._on_repairs_done(ballot, scope)
            case BoundaryAsked():
                self._is_asked = True
                return self._pass_if_due()
            case OpCancelled(op, kind, detail, scope):
                return self._on_cancelled(op, Cancel(kind, detail), scope)
            case ScopeClosed(scope):
                self._ledgers.pop(scope, None)
                return []
            case LeaveAsked():
                return self._on_leave_asked()
            case LinksMeasured(links):
                return self._on_links_measured(links)

    def _on_tick(self) -> list[PeerAction]:
        if self._now_s < self.next_deadline_s:
            return []
        self._pinged_s = self._now_s
        actions = self._coordinator_silence()
        ping = Ping(self.self_id, self._generation, self.epoch, self.boundaries)
        return actions + [Send(message) for message in (ping, *self._unanswered())]

    def _coordinator_silence(self) -> list[PeerAction]:
        silent_s = self._now_s - self._heard_s
        if self._is_coordinator_lost or silent_s <= self.timeout_s:
            return []
        self._is_coordinator_lost = True
        kind = AnnouncementKind.COORDINATOR_UNREACHABLE
        return [self._announce(kind, (), f"not heard for {silent_s:.1f} s")]

    def _on_heard(self) -> list[PeerAction]:
        self._heard_s = self._now_s
        if not self._is_coordinator_lost:
            return []
        self._is_coordinator_lost = False
        return [self._announce(AnnouncementKind.COORDINATOR_BACK, (), "it answers again")]

    def _on_link_lost(self, event: LinkLost) -> list[PeerAction]:
        prepared = self.switch.view if self.switch else None
        is_known = any(view and event.incarnation in view for view in (self.view, prepared))
        if not is_known:
            return [Log(f"link to {event.incarnation:x}, not a member, is lost")]
        self._lost[event.incarnation] = event
        if self.state is not State.JOINING:
            return [Send(self._suspicion(event))]
        if self._is_prepared and self.switch:
            self._is_prepared = False
            self._unreachable = Unreachable(
                self.self_id, self.switch.mark.ballot, (event.incarnation,), event.detail
            )
            return [Send(self._unreachable)]
        return []  # the dialling is still on, and will tell

    def _on_comm_frozen(self, report: CommReport) -> list[PeerAction]:
        if self.state is not State.FROZEN or self._report:
            return [Log("the communicator's report is not needed any more")]
        flights = {0: report.in_flight} | {each.scope: each.in_flight for each in report.scopes}
        for scope, ledger in self._ledgers.items():
            ledger.drop_consumed_cancel(flights.get(scope))
        self._report = report
        return [Send(self._make_report(report))]

    def _on_repairs_done(self, ballot: Ballot, scope: ScopeId) -> list[PeerAction]:
        if ballot != self.epoch or self.state is not State.ACTIVE or scope not in self._repairing:
            return [Log("a repair is complete, but its ballot is over")]
        self._repairing.discard(scope)
        if self._repairing:
            return []
        return [Send(Installed(self.self_id, ballot, self.boundaries))]

    def _on_cancelled(self, op: Op, cancel: Cancel, scope: ScopeId) -> list[PeerAction]:
        if not self._ledger(scope).note_cancel(op, cancel):
            return [Log("the operation is cancelled already")]
        message = self._cancel_message(op, cancel, scope)
        return [Send(message)] if self.state is State.ACTIVE else []

    def _on_leave_asked(self) -> list[PeerAction]:
        leave = Send(Leave(self.self_id, self.epoch))
        if self.state is not State.JOINING:
            self._is_leaving = True
            return [leave]
        self._enter(State.LEFT)
        reason = "left before it was let in"
        return [leave, self._announce(AnnouncementKind.LEFT, (self.join.member,), reason)]

    def _on_links_measured(self, links: tuple[LinkFigures, ...]) -> list[PeerAction]:
        """Told rarely, and only what is news: it is for speed, and nothing waits for it."""
        is_early = self._now_s < self._figures_told_s + self.timeout_s
        if self.state is State.JOINING or is_early or not is_news(self._figures, links):
            return []
        self._figures, self._figures_told_s = links, self._now_s
        return [Send(Figures(self.self_id, links))]

    def _on_message(self, message: CoordinatorMessage) -> list[PeerAction]:
        handlers: dict[type[Any], Callable[[Any], list[PeerAction]]] = {
            Welcome: self._on_welcome,
            Refused: self._on_refused,
            Who: self._on_who,
            Pong: self._on_pong,
            Freeze: self._on_freeze,
            Install: self._on_install,
            Prepare: self._on_prepare,
            Commit: self._on_commit,
            Abandon: self._on_abandon,
            Fenced: self._on_fenced,
            Left: self._on_left,
        }
        return handlers[type(message)](message)

    def _on_welcome(self, message: Welcome) -> list[PeerAction]:
        self._generation = message.generation
        self.welcome = message
        self.timeout_s = message.timeout_s
        return []

    def _on_refused(self, message: Refused) -> list[PeerAction]:
        if self.state is not State.JOINING:
            return [Log(f"refused as a joiner, but {self.state.name}: {message.reason}")]
        self._enter(State.FENCED)
        return [self._announce(AnnouncementKind.REFUSED, (self.join.member,), message.reason)]

    def _on_who(self, message: Who) -> list[PeerAction]:
        self._generation = message.generation
        self._figures = ()  # a coordinator that asks knows none of them
        switch = self.switch
        is_promise = switch is not None and switch.view is not None
        hello = Hello(
            join=self.join,
            epoch=self.epoch,
            view=self.view,
            promised=self.promised,
            is_frozen=self.state is State.FROZEN,
            switch=self.last_switch,
            is_passed=self._is_passed,
            prepared=switch.view if switch else None,
            prepared_switch=switch.mark if switch and is_promise else None,
            boundaries=self.boundaries,
        )
        return [Send(hello)]

    def _on_pong(self, message: Pong) -> list[PeerAction]:
        self._generation = message.generation
        return []

    def _on_freeze(self, message: Freeze) -> list[PeerAction]:
        ballot = message.ballot
        if ballot < self.promised:
            return [Send(Stale(self.self_id, ballot, self.promised))]
        is_new = ballot > self.promised
        self.promised = ballot
        if self.state is State.JOINING:
            return [Send(self._make_report(CommReport(Outcome(), None, ())))]
        if self.state is State.FROZEN:
            return [Send(self._make_report(self._report))] if self._report else []
        if not is_new:
            return self._installed_again(ballot)
        self._enter(State.FROZEN)
        self._report = None
        self._repairing.clear()
        frozen = self._announce(AnnouncementKind.FROZEN, (), message.reason)
        return [FreezeComm(ballot), frozen]

    def _on_install(self, message: Install) -> list[PeerAction]:
        view = message.view
        if view.epoch == self.epoch:
            return self._installed_again(view.epoch)
        if view.epoch != self.promised or self.self_id not in view:
            return [Log(f"INSTALL {epoch_number(view.epoch)} is not for this peer any more")]
        is_newcomer = self.state is State.JOINING
        if not is_newcomer and self._report is None:
            return [Log(f"INSTALL {epoch_number(view.epoch)} before this peer has reported")]
        if why := self._adopt_switch(message.switch, is_newcomer):
            return self._fence(why)
        old = self.view
        self.view = view
        verdict = self._note_verdict(message.verdict, message.switch)
        self._note_scope_verdicts(message.scopes)
        self._report = None
        self._enter(State.ACTIVE)
        install = self._install_action(message, verdict, is_newcomer)
        actions: list[PeerAction] = [install]
        # A link lost after the report, too late for the decision, is suspected again.
        self._lost = {
            peer: lost
            for peer, lost in self._lost.items()
            if peer in view and peer not in install.redials
        }
        actions += [Send(suspicion) for suspicion in self._suspicions()]
        repairs = {0: message.repairs} | {each.scope: each.repairs for each in message.scopes}
        self._repairing = {scope for scope, each in repairs.items() if self._needs(each)}
        if not self._repairing:
            actions.append(Send(Installed(self.self_id, view.epoch, self.boundaries)))
        actions += self._announce_changes(old, message)
        actions += [Send(each) for each in self._cancellations()]
        return actions + self._pass_if_due()

    def _install_action(self, message: Install, verdict: Verdict, is_newcomer: bool) -> InstallComm:
        ends = [(each.one, each.other) for each in message.redials]
        redials = [other for one, other in ends if one == self.self_id]
        redials += [one for one, other in ends if other == self.self_id]
        return InstallComm(
            view=message.view,
            self_rank=message.view.rank_of(self.self_id),
            op_base=op_base(message.switch.ballot) if is_newcomer else 0,
            verdict=verdict,
            repairs=message.repairs,
            redials=tuple(redials),
            has_repair=self._needs(message.repairs),
            scopes=message.scopes,
        )

    def _needs(self, repairs: tuple[Repair, ...]) -> bool:
        return any(each.needer == self.self_id for each in repairs)

    def _adopt_switch(self, mark: SwitchMark, is_newcomer: bool) -> str:
        """Follow the switch that a flush carries along; returns why that is impossible, or ""."""
        self._is_prepared, self._unreachable = False, None
        if is_newcomer:
            self.boundaries = mark.boundary - 1
            self.switch = PendingSwitch(mark, None, Effect.NONE, is_committed=True)
        elif self.last_switch is None or mark.ballot > self.last_switch.ballot:
            if self.boundaries >= mark.boundary:
                return f"passed boundary {mark.boundary} before the switch there was installed"
            self.switch = PendingSwitch(mark, None, Effect.REBASE, is_committed=True)
        elif self._is_passed:
            self.switch = None  # a switch that was prepared, but is void
        self.last_switch = mark
        return ""

    def _note_verdict(self, verdict: Verdict, switch: SwitchMark) -> Verdict:
        """Remember a failure that concerns this peer, and drop a cancellation that is settled.

        Returns what the communicator is to know: nothing of a failure before this peer's time.
        """
        ledger = self._ledger(0)
        ledger.drop_settled_cancel(verdict)
        consumed = self._report.consumed.op if self._report else 0
        is_new = not consumed and self.self_id in switch.newcomers
        is_failure = verdict.kind is VerdictKind.FAIL
        if is_failure and is_new and verdict.op <= op_base(switch.ballot):
            return Verdict()
        ledger.note_failure(verdict, consumed)
        return verdict

    def _note_scope_verdicts(self, verdicts: tuple[ScopeVerdict, ...]) -> None:
        """Also of sub-groups that are yet to be created here."""
        reports = self._report.scopes if self._report else ()
        consumed = {each.scope: each.consumed.op for each in reports}
        for each in verdicts:
            ledger = self._ledger(each.scope)
            ledger.drop_settled_cancel(each.verdict)
            ledger.note_failure(each.verdict, consumed.get(each.scope, 0))

    def _on_fenced(self, message: Fenced) -> list[PeerAction]:
        if self._is_leaving:  # a coordinator that died had let it go
            return self._on_left(Left(message.epoch))
        return self._fence(message.reason)

    def _on_left(self, _: Left) -> list[PeerAction]:
        if not self._is_leaving:
            return [Log("LEFT, but this peer did not ask")]
        self._enter(State.LEFT)
        return [self._announce(AnnouncementKind.LEFT, (self.join.member,), "as asked")]
