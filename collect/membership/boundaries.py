"""A peer's part in planned changes: it prepares, commits, and passes boundaries (section 4)."""

from dataclasses import replace

from collect.membership.events import (
    DialPeers,
    InstallComm,
    Log,
    PassBoundary,
    PeerAction,
    RebaseComm,
    Send,
)
from collect.membership.peer_state import Effect, PeerState, PendingSwitch, State
from collect.types import (
    Ballot,
    Incarnation,
    Op,
    Verdict,
    View,
    epoch_number,
    op_base,
)
from collect.wire.messages import (
    Abandon,
    Commit,
    Installed,
    Late,
    Prepare,
    Prepared,
    Stale,
    Unreachable,
)


class Boundaries(PeerState):
    """PREPARE, COMMIT, ABANDON, and what happens at a boundary."""

    def _on_links_up(self, ballot: Ballot) -> list[PeerAction]:
        if not self._is_dialling(ballot):
            return [Log(f"links for ballot {epoch_number(ballot)} are up, but it is over")]
        self._is_prepared = True
        return [Send(Prepared(self.self_id, ballot))]

    def _on_links_failed(
        self, ballot: Ballot, whom: tuple[Incarnation, ...], detail: str
    ) -> list[PeerAction]:
        if not self._is_dialling(ballot):
            return [Log(f"links for ballot {epoch_number(ballot)} failed, but it is over")]
        self._unreachable = Unreachable(self.self_id, ballot, whom, detail)
        return [Send(self._unreachable)]

    def _is_dialling(self, ballot: Ballot) -> bool:
        is_current = self.switch is not None and self.switch.mark.ballot == ballot
        return self.state is State.JOINING and is_current

    def _on_prepare(self, message: Prepare) -> list[PeerAction]:
        ballot, mark = message.view.epoch, message.switch
        if mark.ballot != ballot:
            return [Log(f"PREPARE {epoch_number(ballot)} contradicts itself")]
        if ballot < self.promised:
            return [Send(Stale(self.self_id, ballot, self.promised))]
        if ballot == self.promised:
            return self._prepared_again(ballot)
        is_busy = self.switch is not None and self.switch.is_committed
        if self.state is State.FROZEN or is_busy or self.self_id not in message.view:
            return [Log(f"PREPARE {epoch_number(ballot)} does not fit: {self.state.name}")]
        self.promised = ballot
        self.switch = None  # a higher ballot replaces a switch that was only prepared
        if self.state is State.ACTIVE and self.boundaries >= mark.boundary:
            late = Late(self.self_id, ballot, self.boundaries)
            return [Send(late), *self._pass_if_due()]
        self.switch = PendingSwitch(mark, message.view, Effect.INSTALL, is_committed=False)
        self._is_prepared = self.state is State.ACTIVE
        self._unreachable = None
        if not self._is_prepared:
            self._lost.clear()
            return [DialPeers(ballot, message.view)]
        return [Send(Prepared(self.self_id, ballot)), *self._pass_if_due()]

    def _prepared_again(self, ballot: Ballot) -> list[PeerAction]:
        is_current = self.switch is not None and self.switch.mark.ballot == ballot
        if is_current and self._is_prepared:
            return [Send(Prepared(self.self_id, ballot))]
        if not is_current and self.state is State.ACTIVE and self.epoch < ballot:
            return [Send(Late(self.self_id, ballot, self.boundaries))]
        return [Log(f"PREPARE {epoch_number(ballot)} repeated")]

    def _on_commit(self, message: Commit) -> list[PeerAction]:
        ballot, switch = message.ballot, self.switch
        if self.last_switch and self.last_switch.ballot == ballot:
            return self._installed_again(ballot)
        is_current = switch is not None and switch.mark.ballot == ballot == self.promised
        if not is_current or switch is None or switch.view is None:
            return [Log(f"COMMIT {epoch_number(ballot)}, but it is over")]
        if self.state is State.ACTIVE:
            self.switch = replace(switch, is_committed=True)
            return self._pass_if_due()
        mark, view = switch.mark, switch.view
        self.switch = PendingSwitch(mark, None, Effect.NONE, is_committed=True)
        self.last_switch = mark
        self.boundaries = mark.boundary - 1
        self._unreachable = None
        self._enter(State.ACTIVE)
        actions = self._install(view, op_base(ballot), "let in")
        actions += [Send(suspicion) for suspicion in self._suspicions()]
        return actions + self._pass_if_due()

    def _on_abandon(self, message: Abandon) -> list[PeerAction]:
        switch = self.switch
        if switch is None or switch.mark.ballot != message.ballot or switch.is_committed:
            return [Log(f"ABANDON {epoch_number(message.ballot)}, but it is not prepared")]
        self.switch = self._unreachable = None
        self._is_prepared = False
        return [Log(f"switch abandoned: {message.reason}"), *self._pass_if_due()]

    def _installed_again(self, ballot: Ballot) -> list[PeerAction]:
        """The coordinator asks twice: it has missed INSTALLED, or the repair is still on."""
        is_of_switch = self.last_switch is not None and self.last_switch.ballot == ballot
        is_due = not self._is_passed if is_of_switch else bool(self._repairing)
        if is_due or not (is_of_switch or ballot == self.epoch):
            return [Log(f"ballot {epoch_number(ballot)} repeated: not complete here")]
        return [Send(Installed(self.self_id, ballot, self.boundaries))]

    def _pass_if_due(self) -> list[PeerAction]:
        if not self._is_asked or self.state is State.JOINING:
            return []
        switch = self.switch
        if switch is None or not self.is_boundary_due:
            self._is_asked = False
            self.boundaries += 1
            return [PassBoundary(self.boundaries, (), False)]
        if not switch.is_committed or self.state is not State.ACTIVE:
            return []
        self._is_asked = False
        return self._pass_switch(switch)

    def _pass_switch(self, switch: PendingSwitch) -> list[PeerAction]:
        mark = switch.mark
        self.switch = None
        self.last_switch = mark
        self.boundaries = mark.boundary
        actions: list[PeerAction] = []
        if switch.effect is Effect.REBASE:
            actions.append(RebaseComm(op_base(mark.ballot)))
        elif switch.effect is Effect.INSTALL and switch.view:
            actions += self._install(switch.view, op_base(mark.ballot), "newcomers are let in")
        actions.append(Send(Installed(self.self_id, mark.ballot, self.boundaries)))
        is_newcomer = self.self_id in mark.newcomers
        actions.append(PassBoundary(self.boundaries, mark.newcomers, is_newcomer))
        return actions

    def _install(self, view: View, base: Op, reason: str) -> list[PeerAction]:
        """A planned change of the view: nothing is in flight, so there is nothing to decide."""
        old = self.view
        self.view = view
        self._lost = {peer: lost for peer, lost in self._lost.items() if peer in view}
        rank = view.rank_of(self.self_id)
        install = InstallComm(view, rank, base, Verdict(), (), (), has_repair=False)
        return [install, *self._announce_joined(old, view, reason)]
