"""What the coordinator knows, and how it speaks: shared by the parts of its machine.

switching.py, flushing.py and coordinator.py build on it, in this order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from math import inf

from collect.membership.ballots import Flush, Recovery, Settling, Switch
from collect.membership.events import (
    CoordinatorAction,
    Log,
    RememberView,
    SendTo,
)
from collect.membership.planning import planned
from collect.types import (
    COUNTER_MAX,
    Admit,
    Ballot,
    Incarnation,
    LinkFigures,
    Member,
    Op,
    Recipe,
    Scope,
    ScopeId,
    SwitchMark,
    View,
    epoch_number,
    make_ballot,
)
from collect.wire.messages import (
    CoordinatorMessage,
    Fenced,
    Join,
    Who,
)

RESENDS_PER_TIMEOUT = 4
GONE_REMEMBERED_MAX = 4096
DIALS_MAX = 3  # a joiner that cannot reach a member so often is refused
TICK_S_MIN = 0.001
REDIALS_MAX = 3  # a link that breaks so often, with no operation between, costs a member
MARGIN_MAX = 1 << 20  # boundaries


class Phase(Enum):
    RECOVERING = auto()  # asking the peers of an earlier coordinator what there is
    STEADY = auto()  # a view, or none yet; nothing under way
    PREPARING = auto()  # a switch that may still be abandoned
    SWITCHING = auto()  # a switch that members are told to make
    FLUSHING = auto()  # a ballot that waits for reports


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.RECOVERING: frozenset({Phase.STEADY, Phase.FLUSHING}),
    Phase.STEADY: frozenset({Phase.PREPARING, Phase.FLUSHING, Phase.RECOVERING}),
    Phase.PREPARING: frozenset({Phase.STEADY, Phase.SWITCHING, Phase.FLUSHING}),
    Phase.SWITCHING: frozenset({Phase.STEADY, Phase.FLUSHING}),
    Phase.FLUSHING: frozenset({Phase.STEADY}),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a coordinator is started with.

    generation: unlike that of any other start for this group, 24 bits.
    group_key: random, 64 bits; a recovered group keeps its own.
    is_first: nobody can be in the group yet. False: wait up to `timeout_s` for members of an
        earlier coordinator before the first view is formed, lest there be two groups.
    last_view: of the last RememberView of an earlier start: only its members can be in the group.
    settle_s: how long to gather suspicions into one ballot, and joins into one switch.
    recipe: of a group that is founded; its founders' wishes come first. A recovered one keeps its.
    plan_timeouts: how many `timeout_s` a view has its recipe before a faster one may replace it.
    """

    group: str
    generation: int
    group_key: int
    timeout_s: float
    scope: Scope = Scope.ANY
    is_first: bool = True
    last_view: View | None = None
    settle_s: float = 0.005
    recipe: Recipe = field(default_factory=Recipe)
    plan_timeouts: float = 4.0


@dataclass(slots=True)
class Candidate:
    """A peer that asked to join and is in no view."""

    join: Join
    since_s: float
    heard_s: float
    not_before_s: float = 0.0
    dials_failed: int = 0


class CoordinatorState:
    """The fields, and what all parts need of them."""

    def __init__(self, settings: Settings, now_s: float) -> None:
        self.settings = settings
        self.view: View | None = None
        self.candidates: dict[Incarnation, Candidate] = {}
        self.phase = Phase.STEADY if settings.is_first else Phase.RECOVERING
        self._admit: Admit | None = None  # of the first to join; all must agree
        self._group_key = settings.group_key
        self._counter = 0
        self._views: dict[Ballot, View] = {}  # that a report may name
        self._last_switch: SwitchMark | None = None
        self._recovery = Recovery(now_s + settings.timeout_s, settings.last_view)
        self._flush: Flush | None = None
        self._switch: Switch | None = None
        self._settling = Settling()
        self._leaving: set[Incarnation] = set()
        self._gone: dict[Incarnation, CoordinatorMessage] = {}  # FENCED or LEFT, told again
        self._heard_s: dict[Incarnation, float] = {}
        self._asked_s: dict[Incarnation, float] = {}
        self._boundaries: dict[Incarnation, int] = {}
        self._margin = 1
        self._figures: dict[Incarnation, dict[Incarnation, LinkFigures]] = {}
        self._has_news = False  # figures that no recipe has been judged by
        self._planned_s = now_s  # when a view was last given a recipe
        self._accused: str = ""  # why a flush is due, at _flush_due_s
        self._flush_due_s = inf
        self._wish: str = ""  # why a flush is due once the last one has settled
        self._breaks: dict[tuple[Incarnation, Incarnation], int] = {}
        self._progress: dict[ScopeId, Op] = {}  # the latest operations that a flush saw consumed
        self._now_s = now_s
        self._actions: list[CoordinatorAction] = []

    def _involved(self) -> frozenset[Incarnation]:
        """Members of the view, of a switch and of a flush in progress."""
        peers = set(self.view.incarnations) if self.view else set()
        if self._switch:
            peers |= set(self._switch.view.incarnations)
        if self._flush:
            peers |= self._flush.targets
        return frozenset(peers)

    def _current_epochs(self) -> set[Ballot]:
        views = [self.view, self._switch.view if self._switch else None]
        return {view.epoch for view in views if view}

    def _ask_flush(self, reason: str) -> None:
        """A flush is due when the suspicions of this moment have come in."""
        if self._flush is None and self._flush_due_s == inf:
            self._log(reason)
            self._accused = reason
            self._flush_due_s = self._now_s + self.settings.settle_s

    def _ask_who(self, peer: Incarnation) -> None:
        """Once for all that a peer had under way, since one HELLO answers it."""
        if self._now_s - self._asked_s.get(peer, -inf) >= self._resend_period_s / 2:
            self._asked_s[peer] = self._now_s
            self._send(peer, Who(self.settings.generation))

    def _is_decided(self, peer: Incarnation) -> bool:
        """A ballot under way decides about this candidate."""
        return peer in self._involved()

    def _mute_s(self, peer: Incarnation) -> float:
        return self._heard_s.get(peer, -inf) + self.settings.timeout_s

    def _is_mute(self, peer: Incarnation) -> bool:
        return self._now_s >= self._mute_s(peer)

    @property
    def _resend_period_s(self) -> float:
        return self.settings.timeout_s / RESENDS_PER_TIMEOUT

    def _next_ballot(self) -> Ballot:
        assert self._counter < COUNTER_MAX
        self._counter += 1
        return make_ballot(self._counter, self.settings.generation)

    def _note_counter(self, promised: Ballot) -> None:
        """A counter that no number of ballots explains is not followed: it would use them up."""
        counter = epoch_number(promised)
        if counter <= COUNTER_MAX // 2:
            self._counter = max(self._counter, counter)

    def _enter(self, phase: Phase) -> None:
        assert phase in TRANSITIONS[self.phase], f"{self.phase.name} to {phase.name}"
        self.phase = phase

    def _name(self, peer: Incarnation) -> str:
        if peer in self.candidates:
            return self.candidates[peer].join.member.name
        views = [self.view, self._switch.view if self._switch else None, *self._views.values()]
        for view in views:
            if view and peer in view:
                return view.name_of(peer)
        return f"{peer:x}"

    def _recipe_for(self, members: tuple[Member, ...], base: View | None) -> Recipe:
        """What the planner makes of `base`'s recipe for these members. What that one says by rank
        is kept only for the same ranks."""
        self._has_news, self._planned_s = False, self._now_s
        recipe = base.recipe if base else self.settings.recipe
        if base is None or base.members != members:
            recipe = replace(recipe, weights=(), order=()).for_members(len(members))
        return planned(members, self._figures, recipe)

    def _send(self, peer: Incarnation, message: CoordinatorMessage) -> None:
        self._actions.append(SendTo(peer, message))

    def _send_all(self, peers: Iterable[Incarnation], message: CoordinatorMessage) -> None:
        for peer in peers:
            self._send(peer, message)

    def _remember(self, view: View) -> None:
        self._actions.append(RememberView(view))

    def _fence(self, peer: Incarnation, reason: str) -> None:
        fenced = Fenced(self.view.epoch if self.view else 0, reason)
        self._remember_gone(peer, fenced)
        self._send(peer, fenced)

    def _remember_gone(self, peer: Incarnation, message: CoordinatorMessage) -> None:
        self._gone[peer] = message
        for memory in (self._heard_s, self._asked_s, self._boundaries, self._figures):
            memory.pop(peer, None)
        self.candidates.pop(peer, None)
        if len(self._gone) > GONE_REMEMBERED_MAX:
            del self._gone[next(iter(self._gone))]

    def _log(self, reason: str) -> None:
        self._actions.append(Log(reason))
