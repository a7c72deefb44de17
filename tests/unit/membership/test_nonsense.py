"""Messages in any order, with any content that the codec lets through: dropped, never fatal."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from collect import types
from collect.membership.events import (
    BoundaryAsked,
    CommFrozen,
    CommReport,
    LinkLost,
    LinksMeasured,
    LinksUp,
    MessageReceived,
    PeerEvent,
    PeerMessageReceived,
    RepairsDone,
    Started,
    Tick,
)
from collect.membership.peer import Peer
from collect.wire import messages
from collect.wire.codec import decode, encode
from tests.unit.membership.stage import formed, joins

PEERS = st.integers(1, 5)
BALLOTS = st.sampled_from([0, *(types.make_ballot(n, g) for n in (1, 2, 3, 4, 9) for g in (1, 2))])
SMALL = st.integers(0, 9)
MEMBERS = PEERS.map(lambda peer: joins(f"p{peer}", peer).member)
RECIPES = st.builds(
    types.Recipe,
    algorithm=st.integers(-1, 9),
    commit_bytes=st.sampled_from([0, 1, 2**31]),
    weights=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    order=st.permutations([0, 1, 2]).map(tuple) | st.just(()),
    radices=st.sampled_from([(), (1, 2), (2, 2), (3,)]),
)


def recipe_fitted(view: types.View) -> types.View:
    return replace(view, recipe=view.recipe.for_members(len(view.members)))


VIEWS = st.builds(
    types.View, BALLOTS, st.lists(MEMBERS, max_size=4, unique=True).map(tuple), st.just(77), RECIPES
).map(recipe_fitted)
SWITCHES = st.builds(
    types.SwitchMark, BALLOTS, SMALL, st.lists(PEERS, max_size=3, unique=True).map(tuple)
)
JOINS = PEERS.map(lambda peer: joins(f"p{peer}", peer))
OPS = st.builds(lambda epoch, op: types.op_base(epoch) + op, BALLOTS, SMALL)
REASONS = st.just(types.FailReason(types.FailKind.ABORTED, ("p1",), "x"))
OUTCOMES = st.builds(
    types.Outcome,
    OPS,
    BALLOTS,
    st.sampled_from(types.OutcomeKind),
    st.booleans(),
    st.none() | REASONS,
)
FLIGHTS = st.builds(
    types.OpInFlight,
    OPS,
    BALLOTS,
    st.just("all_reduce"),
    SMALL,
    is_whole=st.booleans(),
    is_shaped=st.booleans(),
    is_rooted=st.booleans(),
)
LOST = st.lists(st.builds(types.LostLink, PEERS, st.sampled_from(types.LinkLoss)), max_size=3).map(
    tuple
)
LOSSES = st.sampled_from(types.LinkLoss)
CANCELS = st.sampled_from(types.CancelKind)
TEXT = st.just("x")
FLAG = st.booleans()
LINKS = st.lists(
    st.builds(types.LinkFigures, PEERS, SMALL, st.sampled_from([0, 1, 10**9])), max_size=4
).map(tuple)
FROM_PEERS = st.one_of(
    JOINS,
    st.builds(
        messages.Hello,
        JOINS,
        BALLOTS,
        st.none() | VIEWS,
        BALLOTS,
        FLAG,
        st.none() | SWITCHES,
        FLAG,
        st.none() | VIEWS,
        st.none() | SWITCHES,
        SMALL,
    ),
    st.builds(messages.Ping, PEERS, SMALL, BALLOTS, SMALL),
    st.builds(messages.Suspect, PEERS, BALLOTS, PEERS, LOSSES, TEXT),
    st.builds(messages.CancelOp, PEERS, BALLOTS, OPS, CANCELS, TEXT),
    st.builds(
        messages.Report,
        PEERS,
        BALLOTS,
        BALLOTS,
        OUTCOMES,
        st.none() | FLIGHTS,
        LOST,
        st.none() | SWITCHES,
        FLAG,
        SMALL,
    ),
    st.builds(messages.Stale, PEERS, BALLOTS, BALLOTS),
    st.builds(messages.Installed, PEERS, BALLOTS, SMALL),
    st.builds(messages.Prepared, PEERS, BALLOTS),
    st.builds(messages.Late, PEERS, BALLOTS, SMALL),
    st.builds(messages.Unreachable, PEERS, BALLOTS, st.lists(PEERS, max_size=3).map(tuple), TEXT),
    st.builds(messages.Leave, PEERS, BALLOTS),
    st.builds(messages.Figures, PEERS, LINKS),
)
VERDICTS = st.builds(
    types.Verdict, st.sampled_from(types.VerdictKind), OPS, BALLOTS, st.none() | REASONS
)
FROM_COORDINATORS = st.one_of(
    st.builds(messages.Welcome, SMALL, st.just(types.Scope.ANY), st.just(77), st.just(1.0)),
    st.builds(messages.Who, SMALL),
    st.builds(messages.Pong, SMALL, BALLOTS),
    st.builds(messages.Freeze, BALLOTS, TEXT),
    st.builds(
        messages.Install,
        VIEWS,
        BALLOTS,
        VERDICTS,
        st.lists(st.builds(types.Repair, PEERS, PEERS), max_size=2).map(tuple),
        st.lists(st.builds(types.Redial, PEERS, PEERS), max_size=2).map(tuple),
        st.just(()),
        SWITCHES,
        TEXT,
    ),
    st.builds(messages.Prepare, VIEWS, SWITCHES),
    st.builds(messages.Commit, BALLOTS),
    st.builds(messages.Abandon, BALLOTS, TEXT),
    st.builds(messages.Left, BALLOTS),
)
LOCAL = st.one_of(
    st.just(Tick()),
    st.just(BoundaryAsked()),
    st.builds(LinksMeasured, LINKS),
    st.builds(LinksUp, BALLOTS),
    st.builds(RepairsDone, BALLOTS),
    st.builds(LinkLost, PEERS, LOSSES, TEXT),
    st.builds(CommFrozen, BALLOTS, st.builds(CommReport, OUTCOMES, st.none() | FLIGHTS, LOST)),
)


@given(st.lists(FROM_PEERS | st.floats(0, 2), max_size=25))
@settings(max_examples=300)
def test_no_message_stops_the_coordinator(steps: list[messages.PeerMessage | float]) -> None:
    coordinator = formed("p1", "p2", "p3").coordinator
    assert coordinator is not None
    now_s = 101.0

    for step in steps:
        if isinstance(step, float):
            now_s += step
            actions = coordinator.on(Tick(), now_s)
        else:
            actions = coordinator.on(PeerMessageReceived(step), now_s)
        for action in actions:
            if (message := getattr(action, "message", None)) is not None:
                assert decode(encode(message)) == message
        assert coordinator.next_deadline_s > now_s


@given(st.lists(FROM_COORDINATORS | LOCAL, max_size=25), FLAG)
@settings(max_examples=500)
def test_no_message_stops_a_peer(steps: list[object], is_member: bool) -> None:
    if is_member:
        peer = formed("p1", "p2", "p3").actors["p1"].peer
    else:
        peer = Peer(joins("p1", 1), 1.0)
        peer.on(Started(), 101.0)

    for index, step in enumerate(steps):
        is_local = isinstance(step, PeerEvent) and not isinstance(step, MessageReceived)
        event = step if is_local else MessageReceived(step)  # type: ignore[arg-type]
        for action in peer.on(event, 101.0 + index / 10):  # type: ignore[arg-type]
            if (message := getattr(action, "message", None)) is not None:
                assert decode(encode(message)) == message
