"""Every message survives the wire, and no bytes do harm."""

import re
from dataclasses import astuple, is_dataclass, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect import types
from collect.wire import codec, messages
from collect.wire.codec import MESSAGE_BYTES_MAX, WireError, decode, encode
from collect.wire.messages import Message

MEMBER = types.Member(2**63 - 1, "trainer-ü", "boot/net", ("10.0.0.1:5", "[::1]:5"), 10**15)
OTHER = types.Member(7, "other", "", ())
VIEW = types.View(types.make_ballot(5, 3), (MEMBER, OTHER), 2**64 - 1)
SWITCH = types.SwitchMark(VIEW.epoch, 12, (7,))
REASON = types.FailReason(types.FailKind.MISMATCH, ("other",), "op 5.1: a calls x; b calls y")
JOIN = messages.Join(MEMBER, 2, types.Admit.MANUAL, "default", 9, 2**31, 1)
RICH = types.Recipe(
    algorithm=7,
    commit_bytes=0,
    local=types.LinkModel(1, 1, 1),
    remote=types.LinkModel(60 * 10**9, 60 * 10**9, 10**15),
    reduce_bytes_per_s=10**15,
    transport=1,
    weights=(2**32 - 1, 1),
    order=(1, 0),
    radices=(1, 2),
)
RICH_VIEW = replace(VIEW, recipe=RICH)

MESSAGES: tuple[Message, ...] = (
    JOIN,
    messages.Hello(JOIN, VIEW.epoch, VIEW, VIEW.epoch, True, SWITCH, False, VIEW, SWITCH, 9),
    messages.Hello(JOIN, 0, None, 0, False, None, False, None, None, 0),
    messages.Ping(7, 3, VIEW.epoch, 11),
    messages.Suspect(7, VIEW.epoch, 9, types.LinkLoss.SILENT, "nothing for 3 s"),
    messages.CancelOp(7, VIEW.epoch, 2**63 - 1, types.CancelKind.TIMEOUT, "60 s", 2**31 - 1),
    messages.Report(
        7,
        VIEW.epoch,
        VIEW.epoch,
        types.Outcome(4, VIEW.epoch, types.OutcomeKind.FAILED, False, REASON),
        types.OpInFlight(
            5,
            VIEW.epoch,
            "all_reduce",
            2**32 - 1,
            types.Cancel(types.CancelKind.MEMBERS, "user"),
            True,
            True,
            True,
        ),
        (types.LostLink(9, types.LinkLoss.RESET),),
        SWITCH,
        True,
        4,
        (
            types.ScopeReport(
                2**31 - 1,
                (9, 7),
                types.Outcome(4, VIEW.epoch, types.OutcomeKind.FAILED, False, REASON),
                types.OpInFlight(5, VIEW.epoch, "barrier", 0),
            ),
        ),
    ),
    messages.Stale(7, 1, 2),
    messages.Installed(7, VIEW.epoch, 4),
    messages.Prepared(7, VIEW.epoch),
    messages.Prepare(RICH_VIEW, SWITCH),
    messages.Late(7, VIEW.epoch, 13),
    messages.Unreachable(7, VIEW.epoch, (9, 10), "refused"),
    messages.Leave(7, VIEW.epoch),
    messages.Figures(7, (types.LinkFigures(9, 60 * 10**9, 10**15), types.LinkFigures(10, 0, 0))),
    messages.Welcome(3, types.Scope.LOOPBACK, 2**64 - 1, 3.0),
    messages.Refused("other group"),
    messages.Who(2**24 - 1),
    messages.Pong(3, VIEW.epoch),
    messages.Freeze(VIEW.epoch, "a lost b"),
    messages.Install(
        VIEW,
        1,
        types.Verdict(types.VerdictKind.FAIL, 5, 0, REASON),
        (types.Repair(7, 9),),
        (types.Redial(7, 9),),
        (types.Departure(9, types.DepartureKind.LOST, "silent"),),
        SWITCH,
        "why",
        (types.ScopeVerdict(1, types.Verdict(reason=REASON), (types.Repair(7, 9),)),),
    ),
    messages.Prepare(VIEW, SWITCH),
    messages.Commit(VIEW.epoch),
    messages.Abandon(VIEW.epoch, "late"),
    messages.Fenced(VIEW.epoch, "expelled"),
    messages.Left(VIEW.epoch),
)


def refused(encoded: bytes) -> str:
    with pytest.raises(WireError) as caught:
        decode(encoded)
    return caught.value.reason


def decoded_if_valid(encoded: bytes) -> Message | None:
    """None: refused with a reason. Anything but WireError fails the test."""
    try:
        return decode(encoded)
    except WireError as error:
        return None if error.reason else pytest.fail("refused without a reason")


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


def test_every_kind_of_message_is_tried() -> None:
    assert {type(message) for message in MESSAGES} == {cls for cls, _ in codec.KINDS}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_field_of_another_type_is_refused(message: Message) -> None:
    plain = msgpack.unpackb(encode(message))
    for index in range(2, len(plain)):
        wrong = [*plain]
        wrong[index] = 1.5 if not isinstance(plain[index], float) else "1.5"
        assert refused(msgpack.packb(wrong))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_missing_and_an_extra_field_are_refused(message: Message) -> None:
    plain = msgpack.unpackb(encode(message))

    assert "fields of" in refused(msgpack.packb(plain[:-1]))
    assert "fields of" in refused(msgpack.packb([*plain, 0]))


def test_another_version_is_refused_and_named() -> None:
    assert refused(msgpack.packb([2, 0])) == "version 2, this is 1"


def test_an_unknown_kind_is_refused() -> None:
    assert refused(msgpack.packb([1, 999])) == "no message is of kind 999"


def test_true_is_no_integer() -> None:
    assert refused(msgpack.packb([1, codec.KIND_OF[messages.Commit], True])).startswith("Commit")


def test_a_number_out_of_range_is_refused_when_sent_too() -> None:
    with pytest.raises(WireError, match="Who: generation"):
        encode(messages.Who(2**24))


def test_a_message_over_the_limit_is_refused_unread() -> None:
    assert "too large" in refused(b"\x00" * (MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algorithm": -2}, "in -1..9"),
        ({"algorithm": 10}, "in -1..9"),
        ({"commit_bytes": -1}, "commit_bytes"),
        ({"commit_bytes": 2**31 + 1}, "commit_bytes"),
        ({"local": types.LinkModel(0, 1, 1)}, "local: latency_ns"),
        ({"remote": types.LinkModel(1, 1, 10**15 + 1)}, "remote: bytes_per_s"),
        ({"reduce_bytes_per_s": 0}, "reduce_bytes_per_s"),
        ({"transport": 2}, "transport: expected an integer in 0..1"),
        ({"weights": (1, 1, 1)}, "3 weights for 2 members"),
        ({"weights": (0, 0)}, "add up to 0"),
        ({"weights": (2**32 - 1, 2)}, "add up to 4294967297"),
        ({"order": (0,)}, "no permutation of 2"),
        ({"order": (0, 0)}, "no permutation of 2"),
        ({"order": (0, 2)}, "no permutation of 2"),
        ({"radices": (3,)}, "radices of 3 ranks for 2 members"),
        ({"radices": (0,)}, "radices"),
        ({"radices": (1, 1, 1, 1, 2)}, "at most 4"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_both_ways(changes: dict[str, Any], why: str) -> None:
    message = messages.Prepare(replace(VIEW, recipe=replace(RICH, **changes)), SWITCH)

    with pytest.raises(WireError, match=re.escape(why)):
        encode(message)

    plain = msgpack.unpackb(encode(messages.Prepare(RICH_VIEW, SWITCH)))
    for name, value in changes.items():
        index = list(types.Recipe.__dataclass_fields__).index(name)
        plain[2][3][index] = list(astuple(value)) if is_dataclass(value) else value
    assert why in refused(msgpack.packb(plain))


def test_a_peer_with_as_many_sub_groups_as_it_may_have_can_report() -> None:
    """Every one of them with an operation in flight, and as many members as all may have."""
    each = types.ScopeReport(
        2**31 - 1,
        (2**63 - 1,) * (types.SCOPE_SEATS_MAX // types.SCOPES_MAX),
        types.Outcome(2**63 - 1, VIEW.epoch, types.OutcomeKind.DONE, True),
        types.OpInFlight(2**63 - 1, VIEW.epoch, "x" * 64, 2**32 - 1),
    )
    report = next(m for m in MESSAGES if isinstance(m, messages.Report))
    full = replace(report, scopes=(each,) * types.SCOPES_MAX)

    assert decode(encode(full)) == full


@pytest.mark.parametrize("scope", [0, 2**31])
def test_a_sub_group_has_a_number_of_31_bits(scope: int) -> None:
    report = next(m for m in MESSAGES if isinstance(m, messages.Report))

    with pytest.raises(WireError, match="scope"):
        encode(replace(report, scopes=(types.ScopeReport(scope, (7,)),)))


def test_the_reason_of_a_sub_groups_failure_is_cut_short() -> None:
    """There may be many of them in one message."""
    install = next(m for m in MESSAGES if isinstance(m, messages.Install))
    long = replace(REASON, text="x" * 5000)
    verdicts = (types.ScopeVerdict(1, types.Verdict(reason=long)),)

    decoded = decode(encode(replace(install, scopes=verdicts)))

    assert isinstance(decoded, messages.Install)
    (verdict,) = decoded.scopes
    assert verdict.verdict.reason is not None
    assert len(verdict.verdict.reason.text) == codec.SCOPE_PROSE_CHARS_MAX


def test_a_view_with_a_recipe_survives_the_disk() -> None:
    assert codec.decode_view(codec.encode_view(RICH_VIEW)) == RICH_VIEW


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (types.LinkFigures(0, 1, 1), "incarnation"),
        (types.LinkFigures(9, 60 * 10**9 + 1, 1), "rtt_min_ns"),
        (types.LinkFigures(9, 1, -1), "delivery_bytes_per_s"),
    ],
)
def test_figures_out_of_range_are_refused_both_ways(link: types.LinkFigures, why: str) -> None:
    with pytest.raises(WireError, match=why):
        encode(messages.Figures(7, (link,)))

    kind = codec.KIND_OF[messages.Figures]
    assert why in refused(msgpack.packb([1, kind, 7, [list(astuple(link))]]))


def test_figures_of_more_links_than_there_can_be_are_refused() -> None:
    links = (types.LinkFigures(9, 60 * 10**9, 10**15),) * types.MEMBERS_MAX

    assert decode(encode(messages.Figures(7, links))) == messages.Figures(7, links)
    with pytest.raises(WireError, match="at most 1024"):
        encode(messages.Figures(7, (*links, links[0])))


def test_the_largest_recipe_fits_in_a_message() -> None:
    members = tuple(
        types.Member(2**62 + index, f"trainer-{index:04}", "b" * 64, ("10.0.0.1:65535",) * 2)
        for index in range(types.MEMBERS_MAX)
    )
    ranks = tuple(range(types.MEMBERS_MAX))
    recipe = types.Recipe(weights=(2**22,) * types.MEMBERS_MAX, order=ranks, radices=(32, 32))

    message = messages.Prepare(types.View(VIEW.epoch, members, 1, recipe), SWITCH)

    assert decode(encode(message)) == message


def test_nested_lists_do_not_exhaust_the_stack() -> None:
    assert refused(b"\x91" * 100_000)


def test_an_extension_type_is_refused() -> None:
    assert refused(msgpack.packb([1, 0, msgpack.ExtType(5, b"x")]))
    assert refused(msgpack.packb(msgpack.Timestamp(1, 2)))


def test_prose_is_shortened_rather_than_refused() -> None:
    message = decode(encode(messages.Refused("x" * 10_000)))

    assert isinstance(message, messages.Refused)
    assert len(message.reason) == codec.PROSE_CHARS_MAX
    assert message.reason.endswith("…")


def test_half_a_surrogate_pair_in_prose_does_not_stop_a_message() -> None:
    assert decode(encode(messages.Refused("a\ud800b"))) == messages.Refused("a?b")


def test_the_largest_view_fits_in_a_message() -> None:
    addresses = ("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535",) * 4
    members = tuple(
        types.Member(index + 1, f"trainer-{index:04}.example.org", "b" * 64, addresses)
        for index in range(types.MEMBERS_MAX)
    )

    message = messages.Prepare(types.View(VIEW.epoch, members, 1), SWITCH)

    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_random_bytes_are_refused_with_a_reason(encoded: bytes) -> None:
    decoded_if_valid(encoded)


@given(st.data())
@settings(max_examples=1000)
def test_a_damaged_message_is_decoded_or_refused(data: st.DataObject) -> None:
    encoded = bytearray(encode(data.draw(st.sampled_from(MESSAGES))))
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(encoded) - 1))
        encoded[index] = data.draw(st.integers(0, 255))

    message = decoded_if_valid(bytes(encoded))

    assert message is None or decode(encode(message)) == message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=5),
    max_leaves=20,
)


@given(st.integers(0, 30), st.lists(PLAIN, max_size=12))
@settings(max_examples=500)
def test_well_formed_nonsense_is_refused(kind: int, values: list[object]) -> None:
    decoded_if_valid(msgpack.packb([1, kind, *values]))


def test_an_outcome_of_a_wrong_class_is_refused_when_sent() -> None:
    report = next(m for m in MESSAGES if isinstance(m, messages.Report))

    with pytest.raises(WireError, match="consumed: expected a Outcome"):
        encode(replace(report, consumed=None))  # type: ignore[arg-type]
