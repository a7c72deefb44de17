"""Newcomers, and the state that they are given."""

import numpy as np
import pytest

import collect
from tests.e2e.world import Stage, error_fields, world

LENGTH = 3_000_000  # of the state's vector: several frames per piece


def new_state() -> dict[str, np.ndarray]:
    return {
        "vector": np.zeros(LENGTH, np.float32),
        "grid": np.zeros((3, 5), np.float64)[:, ::2],
        "step": np.zeros(1, np.int64),
        "flags": np.zeros(3, np.bool_),
    }


def training(stage: Stage) -> None:
    """Steps until everybody has seen `steps`, admitting whoever comes."""
    state = new_state()
    with stage.join(admit="manual") as group:
        stage.tell("joined", rank=group.rank)
        received = []
        while True:
            admission = group.admit(state)
            if admission.joined:
                received.append([sorted(admission.joined), admission.received])
            if stage.settings.get("pause_at") == int(state["step"][0]):
                stage.tell("paused", step=int(state["step"][0]))
                stage.hear()
            if int(state["step"][0]) >= stage.settings["steps"]:
                break
            change = group.all_reduce(np.ones(10), "avg").array[0]
            state["vector"] += change
            state["grid"] += change
            state["step"] += 1
            state["flags"][1] = True
        digest = "".join(
            f"{name}:{float(np.sum(array, dtype=np.float64))};" for name, array in state.items()
        )
        stage.tell("over", digest=digest, received=received, size=group.size)


def test_a_late_joiner_is_given_the_state_and_goes_on_with_the_others() -> None:
    with world() as here:
        a = here.peer(training, "a", min_peers=2, steps=40, pause_at=10)
        b = here.peer(training, "b", min_peers=2, steps=40)
        for peer in (a, b):
            peer.told("joined")
        a.told("paused")

        c = here.peer(training, "c", steps=40)
        here.wait_for_log("let in c")
        a.say()

        c.told("joined")
        told = {peer.name: peer.told("over") for peer in (a, b, c)}
        assert len({each["digest"] for each in told.values()}) == 1
        assert told["a"]["digest"].startswith(f"vector:{LENGTH * 40.0}")
        assert told["a"]["received"] == [[["a", "b"], False], [["c"], False]]
        assert told["b"]["received"] == [[["a", "b"], False], [["c"], False]]
        assert told["c"]["received"] == [[["c"], True]]
        assert [peer.wait() for peer in (a, b, c)] == [0, 0, 0]


def founding(stage: Stage) -> None:
    state = {"w": np.full(1000, float(ord(stage.name)))}
    with stage.join(admit="manual") as group:
        with pytest.raises(collect.InvalidArgument, match="admit"):
            group.all_reduce(np.ones(3))
        founder = group.peers[0].name
        admission = group.admit(state)
        assert (state["w"] == ord(founder)).all()
        assert admission.received == (stage.name != founder)
        assert group.admit(state).joined == ()
        stage.tell("over", joined=sorted(admission.joined))


def test_founders_that_differ_get_the_state_of_rank_0() -> None:
    with world() as here:
        peers = here.team(founding, 3)

        for peer in peers:
            assert peer.told("over")["joined"] == ["a", "b", "c"]


def differing(stage: Stage) -> None:
    kind = stage.settings["kind"]
    state = {"w": np.zeros(100)}
    if kind == "layout" and stage.name == "b":
        state = {"w": np.zeros(101)}
    with stage.join(admit="manual") as group:
        try:
            group.admit(state)
            if kind == "bytes":
                if stage.name == "b":
                    state["w"][7] = 1.0
                stage.tell("founded")
                while True:
                    group.admit(state)
        except collect.StateMismatch as error:
            stage.tell("failed", **error_fields(error))
            stage.hear()


def test_states_of_different_layouts_are_refused_everywhere() -> None:
    with world() as here:
        peers = here.team(differing, 2, kind="layout")

        assert {peer.told("failed")["type"] for peer in peers} == {"StateMismatch"}
        for peer in peers:
            peer.say()
            assert peer.wait() == 0


def test_members_that_differ_give_nothing_to_a_newcomer() -> None:
    with world() as here:
        peers = here.team(differing, 2, kind="bytes")
        for peer in peers:
            peer.told("founded")

        peers.append(here.peer(newcomer, "c"))

        assert {peer.told("failed")["type"] for peer in peers} == {"StateMismatch"}
        for peer in peers:
            peer.say()
            assert peer.wait() == 0


def newcomer(stage: Stage) -> None:
    with stage.join(admit="manual") as group:
        try:
            group.admit({"w": np.zeros(100)})
        except collect.StateMismatch as error:
            stage.tell("failed", **error_fields(error))
            stage.hear()


def die_in_maximum(group: collect.Group, call: int, frame: int) -> None:
    """Arms the fail-point in the n-th all-reduce that `admit` makes: 0 is the header."""
    maximise, calls = group._maximise, iter(range(100))

    def armed(array: np.ndarray) -> tuple[int, ...]:
        if next(calls) == call:
            group._kill_at(frame)
        return maximise(array)

    group._maximise = armed  # type: ignore[method-assign]


def dying(stage: Stage) -> None:
    """An incumbent is killed in the middle of handing the state over."""
    state = new_state()
    with stage.join(admit="manual") as group:
        group.admit(state)
        state["vector"] += 1 if stage.name != "c" else 0
        stage.tell("joined")
        if stage.settings.get("is_victim"):
            stage.hear()
            die_in_maximum(group, stage.settings["call"], stage.settings["frame"])
        while not (admission := group.admit(state)).joined and stage.name != "c":
            pass
        stage.tell("over", sum=float(state["vector"].sum()), received=admission.received)


@pytest.mark.parametrize(("call", "frame"), [(0, 1), (0, 2), (1, 1), (1, 5), (1, 15)])
def test_an_incumbent_may_die_while_the_state_is_handed_over(call: int, frame: int) -> None:
    with world() as here:
        a = here.peer(dying, "a", min_peers=2)
        b = here.peer(dying, "b", min_peers=2, is_victim=True, call=call, frame=frame)
        for peer in (a, b):
            peer.told("joined")

        c = here.peer(late, "c")
        here.wait_for_log("let in c")
        b.say()

        assert a.told("over")["sum"] == LENGTH
        told = c.told("over")
        assert told["received"] is True
        assert told["sum"] == LENGTH
        assert b.wait() == -9


def late(stage: Stage) -> None:
    state = new_state()
    with stage.join(admit="manual") as group:
        admission = group.admit(state)
        stage.tell("over", sum=float(state["vector"].sum()), received=admission.received)


def auto(stage: Stage) -> None:
    with stage.join() as group:
        stage.tell("joined")
        while group.all_reduce(np.ones(10)).array[0] < stage.settings["until"]:
            pass
        stage.tell("over", size=group.size)


def test_in_auto_mode_newcomers_enter_between_operations() -> None:
    with world() as here:
        peers = here.team(auto, 2, until=4)
        for peer in peers:
            peer.told("joined")

        peers += [here.peer(auto, name, until=4) for name in "cd"]

        assert [peer.told("joined")["what"] for peer in peers[2:]] == ["joined"] * 2
        for peer in peers:
            peer.told("over")
            assert peer.wait() == 0
