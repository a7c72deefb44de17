"""Control messages as bytes: `[version, kind, field, ...]` in msgpack.

Bytes from the network are never trusted. Each field has a codec that states its type, range and
size; what does not fit is refused with a reason, and nothing but WireError leaves `decode`. The
same codecs check what we send, so that a peer cannot be made to emit what others refuse.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from collect import types
from collect.wire import messages
from collect.wire.messages import Message

VERSION = 1
MESSAGE_BYTES_MAX = 1 << 20
NAME_CHARS_MAX = 256
ADDRESS_CHARS_MAX = 128
ADDRESSES_MAX = 16
PROSE_CHARS_MAX = 4096
SCOPE_PROSE_CHARS_MAX = 256  # there may be many scopes in one message
DESCRIPTOR_CHARS_MAX = 128
U32_MAX = 2**32 - 1
U63_MAX = 2**63 - 1
U64_MAX = 2**64 - 1
TIMEOUT_S_MAX = 86_400.0
ALGORITHM_LAST = 9  # of enum collect_algorithm
COMMIT_BYTES_MAX = 1 << 31
LATENCY_NS_MAX = 60 * 10**9
BYTES_PER_S_MAX = 10**15
LEVELS_MAX = 4  # COLLECT_LEVELS_MAX
WEIGHT_SUM_MAX = 1 << 32


class WireError(ValueError):
    """The bytes are no valid message, or the value none that may be sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of value becomes msgpack's plain values and back; both raise WireError."""

    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def integer(low: int, high: int) -> Codec:
    def check(value: Any) -> int:
        # bool is an int to isinstance, not to us.
        if type(value) is not int or not low <= value <= high:
            raise WireError(f"expected an integer in {low}..{high}, got {shown(value)}")
        return value

    return Codec(check, check)


def number(low: float, high: float) -> Codec:
    def check(value: Any) -> float:
        if type(value) is not float or not low <= value <= high:  # refuses NaN as well
            raise WireError(f"expected a number in {low}..{high}, got {shown(value)}")
        return value

    return Codec(check, check)


def text(chars_max: int) -> Codec:
    def check(value: Any) -> str:
        if type(value) is not str or len(value) > chars_max:
            raise WireError(f"expected text of at most {chars_max} characters, got {shown(value)}")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise WireError("text holds half a surrogate pair")
        return value

    return Codec(check, check)


def prose(chars_max: int) -> Codec:
    """Text for people: shortened when sent, since its length must never stop a decision."""
    strict = text(chars_max)

    def pack(value: Any) -> str:
        if type(value) is not str:
            raise WireError(f"expected text, got {shown(value)}")
        clean = str(value).encode(errors="replace").decode()
        return clean if len(clean) <= chars_max else clean[: chars_max - 1] + "…"

    return Codec(pack, strict.unpack)


def boolean() -> Codec:
    def check(value: Any) -> bool:
        if type(value) is not bool:
            raise WireError(f"expected true or false, got {shown(value)}")
        return value

    return Codec(check, check)


def choice(enum: type[IntEnum]) -> Codec:
    def pack(value: Any) -> int:
        if type(value) is not enum:
            raise WireError(f"expected a {enum.__name__}, got {shown(value)}")
        return int(value)

    def unpack(value: Any) -> IntEnum:
        if type(value) is not int or value not in enum.__members__.values():
            raise WireError(f"no {enum.__name__}: {shown(value)}")
        return enum(value)

    return Codec(pack, unpack)


def sequence(item: Codec, count_max: int) -> Codec:
    def pack(value: Any) -> list[Any]:
        if type(value) is not tuple or len(value) > count_max:
            raise WireError(f"expected a tuple of at most {count_max}, got {shown(value)}")
        return [item.pack(each) for each in value]

    def unpack(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > count_max:
            raise WireError(f"expected a list of at most {count_max}, got {shown(value)}")
        return tuple([item.unpack(each) for each in value])

    return Codec(pack, unpack)


def optional(item: Codec) -> Codec:
    return Codec(
        lambda value: None if value is None else item.pack(value),
        lambda value: None if value is None else item.unpack(value),
    )


def record(cls: type[Any], **fields: Codec) -> Codec:
    """A dataclass as the list of its fields, in the order of its declaration."""
    assert tuple(fields) == tuple(cls.__dataclass_fields__), f"fields of {cls.__name__}"

    def pack(value: Any) -> list[Any]:
        if type(value) is not cls:
            raise WireError(f"expected a {cls.__name__}, got {shown(value)}")
        return [within(name, codec.pack, getattr(value, name)) for name, codec in fields.items()]

    def unpack(value: Any) -> Any:
        if type(value) is not list or len(value) != len(fields):
            raise WireError(f"expected the {len(fields)} fields of {cls.__name__}")
        pairs = zip(fields.items(), value, strict=True)
        return cls(*[within(name, codec.unpack, each) for (name, codec), each in pairs])

    return Codec(pack, unpack)


def checked(item: Codec, check: Callable[[Any], None]) -> Codec:
    """`item` with a rule over several of its fields, for what is sent and what comes."""

    def pack(value: Any) -> Any:
        plain = item.pack(value)
        check(value)
        return plain

    def unpack(plain: Any) -> Any:
        value = item.unpack(plain)
        check(value)
        return value

    return Codec(pack, unpack)


def check_recipe(view: types.View) -> None:
    """What the recipe says by rank must be said for each member of its view, or for none."""
    recipe, count = view.recipe, len(view.members)
    if recipe.weights:
        if len(recipe.weights) != count:
            raise WireError(f"recipe: {len(recipe.weights)} weights for {count} members")
        if not 1 <= sum(recipe.weights) <= WEIGHT_SUM_MAX:
            raise WireError(f"recipe: weights add up to {sum(recipe.weights)}, not to 1..2^32")
    if recipe.order and sorted(recipe.order) != list(range(count)):
        raise WireError(f"recipe: the order is no permutation of {count} ranks")
    if recipe.radices and math.prod(recipe.radices) != count:
        raise WireError(f"recipe: radices of {math.prod(recipe.radices)} ranks for {count} members")


def within(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except WireError as error:
        raise WireError(f"{name}: {error.reason}") from None


def shown(value: Any) -> str:
    """A value for a reason, however large it is."""
    if isinstance(value, int | float):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, str | bytes | list | tuple) else ""
    return f"{type(value).__name__}{size}"


FLAG = boolean()
U32 = integer(0, U32_MAX)
U63 = integer(0, U63_MAX)
U64 = integer(0, U64_MAX)
INCARNATION = integer(1, U63_MAX)
BALLOT = integer(0, (types.COUNTER_MAX + 1 << types.GENERATION_BITS) - 1)
GENERATION = integer(0, (1 << types.GENERATION_BITS) - 1)
NAME = text(NAME_CHARS_MAX)
PROSE = prose(PROSE_CHARS_MAX)
INCARNATIONS = sequence(INCARNATION, types.MEMBERS_MAX)

MEMBER = record(
    types.Member,
    incarnation=INCARNATION,
    name=NAME,
    host=NAME,
    addresses=sequence(text(ADDRESS_CHARS_MAX), ADDRESSES_MAX),
    bandwidth=integer(0, BYTES_PER_S_MAX),
)
LINK_MODEL = record(
    types.LinkModel,
    latency_ns=integer(1, LATENCY_NS_MAX),
    overhead_ns=integer(1, LATENCY_NS_MAX),
    bytes_per_s=integer(1, BYTES_PER_S_MAX),
)
LINK_FIGURES = record(
    types.LinkFigures,
    incarnation=INCARNATION,
    rtt_min_ns=integer(0, LATENCY_NS_MAX),
    delivery_bytes_per_s=integer(0, BYTES_PER_S_MAX),
)
ALGORITHM = integer(types.ALGORITHM_AUTO, ALGORITHM_LAST)
COMMIT_BYTES = integer(0, COMMIT_BYTES_MAX)
TRANSPORT = integer(types.TRANSPORT_AUTO, types.TRANSPORT_TCP)
RECIPE = record(
    types.Recipe,
    algorithm=ALGORITHM,
    commit_bytes=COMMIT_BYTES,
    local=LINK_MODEL,
    remote=LINK_MODEL,
    reduce_bytes_per_s=integer(1, BYTES_PER_S_MAX),
    transport=TRANSPORT,
    weights=sequence(U32, types.MEMBERS_MAX),
    order=sequence(integer(0, types.MEMBERS_MAX - 1), types.MEMBERS_MAX),
    radices=sequence(integer(1, types.MEMBERS_MAX), LEVELS_MAX),
)
VIEW = checked(
    record(
        types.View,
        epoch=BALLOT,
        members=sequence(MEMBER, types.MEMBERS_MAX),
        group_key=U64,
        recipe=RECIPE,
    ),
    check_recipe,
)
REASON = record(
    types.FailReason,
    kind=choice(types.FailKind),
    culprits=sequence(NAME, types.MEMBERS_MAX),
    text=PROSE,
)


def outcome(reason: Codec) -> Codec:
    return record(
        types.Outcome,
        op=U63,
        attempt=BALLOT,
        kind=choice(types.OutcomeKind),
        is_retained=FLAG,
        reason=optional(reason),
    )


def in_flight(prose_chars_max: int) -> Codec:
    cancel = record(types.Cancel, kind=choice(types.CancelKind), detail=prose(prose_chars_max))
    return record(
        types.OpInFlight,
        op=U63,
        attempt=BALLOT,
        descriptor=prose(DESCRIPTOR_CHARS_MAX),
        digest=U32,
        cancel=optional(cancel),
        is_whole=FLAG,
        is_shaped=FLAG,
        is_rooted=FLAG,
    )


def verdict(reason: Codec) -> Codec:
    return record(
        types.Verdict,
        kind=choice(types.VerdictKind),
        op=U63,
        attempt=BALLOT,
        reason=optional(reason),
    )


LOST = record(types.LostLink, incarnation=INCARNATION, kind=choice(types.LinkLoss))
SWITCH = record(types.SwitchMark, ballot=BALLOT, boundary=U63, newcomers=INCARNATIONS)
REPAIR = record(types.Repair, holder=INCARNATION, needer=INCARNATION)
REPAIRS = sequence(REPAIR, types.MEMBERS_MAX)
SCOPE_REASON = record(
    types.FailReason,
    kind=choice(types.FailKind),
    culprits=sequence(NAME, types.MEMBERS_MAX),
    text=prose(SCOPE_PROSE_CHARS_MAX),
)
SCOPE_REPORT = record(
    types.ScopeReport,
    scope=integer(1, types.SCOPE_ID_MAX),
    members=INCARNATIONS,
    consumed=outcome(SCOPE_REASON),
    in_flight=optional(in_flight(SCOPE_PROSE_CHARS_MAX)),
)
SCOPE_VERDICT = record(
    types.ScopeVerdict,
    scope=integer(1, types.SCOPE_ID_MAX),
    verdict=verdict(SCOPE_REASON),
    repairs=REPAIRS,
)
REDIAL = record(types.Redial, one=INCARNATION, other=INCARNATION)
DEPARTURE = record(
    types.Departure,
    incarnation=INCARNATION,
    kind=choice(types.DepartureKind),
    reason=prose(256),
)
JOIN = record(
    messages.Join,
    member=MEMBER,
    min_peers=integer(1, types.MEMBERS_MAX),
    admit=choice(types.Admit),
    group=NAME,
    algorithm=ALGORITHM,
    commit_bytes=COMMIT_BYTES,
    transport=TRANSPORT,
)

# The kind on the wire is the index here: append, never reorder.
KINDS: tuple[tuple[type[Any], Codec], ...] = (
    (messages.Join, JOIN),
    (
        messages.Hello,
        record(
            messages.Hello,
            join=JOIN,
            epoch=BALLOT,
            view=optional(VIEW),
            promised=BALLOT,
            is_frozen=FLAG,
            switch=optional(SWITCH),
            is_passed=FLAG,
            prepared=optional(VIEW),
            prepared_switch=optional(SWITCH),
            boundaries=U63,
        ),
    ),
    (
        messages.Ping,
        record(
            messages.Ping,
            incarnation=INCARNATION,
            generation=GENERATION,
            epoch=BALLOT,
            boundaries=U63,
        ),
    ),
    (
        messages.Suspect,
        record(
            messages.Suspect,
            incarnation=INCARNATION,
            epoch=BALLOT,
            accused=INCARNATION,
            kind=choice(types.LinkLoss),
            detail=PROSE,
        ),
    ),
    (
        messages.CancelOp,
        record(
            messages.CancelOp,
            incarnation=INCARNATION,
            epoch=BALLOT,
            op=U63,
            kind=choice(types.CancelKind),
            detail=PROSE,
            scope=integer(0, types.SCOPE_ID_MAX),
        ),
    ),
    (
        messages.Report,
        record(
            messages.Report,
            incarnation=INCARNATION,
            ballot=BALLOT,
            epoch=BALLOT,
            consumed=outcome(REASON),
            in_flight=optional(in_flight(PROSE_CHARS_MAX)),
            lost=sequence(LOST, types.MEMBERS_MAX),
            switch=optional(SWITCH),
            is_passed=FLAG,
            boundaries=U63,
            scopes=sequence(SCOPE_REPORT, types.SCOPES_MAX),
        ),
    ),
    (
        messages.Stale,
        record(messages.Stale, incarnation=INCARNATION, ballot=BALLOT, promised=BALLOT),
    ),
    (
        messages.Installed,
        record(messages.Installed, incarnation=INCARNATION, ballot=BALLOT, boundaries=U63),
    ),
    (messages.Prepared, record(messages.Prepared, incarnation=INCARNATION, ballot=BALLOT)),
    (
        messages.Late,
        record(messages.Late, incarnation=INCARNATION, ballot=BALLOT, boundaries=U63),
    ),
    (
        messages.Unreachable,
        record(
            messages.Unreachable,
            incarnation=INCARNATION,
            ballot=BALLOT,
            whom=INCARNATIONS,
            detail=PROSE,
        ),
    ),
    (messages.Leave, record(messages.Leave, incarnation=INCARNATION, epoch=BALLOT)),
    (
        messages.Welcome,
        record(
            messages.Welcome,
            generation=GENERATION,
            scope=choice(types.Scope),
            group_key=U64,
            timeout_s=number(0.001, TIMEOUT_S_MAX),
        ),
    ),
    (messages.Refused, record(messages.Refused, reason=PROSE)),
    (messages.Who, record(messages.Who, generation=GENERATION)),
    (messages.Pong, record(messages.Pong, generation=GENERATION, epoch=BALLOT)),
    (messages.Freeze, record(messages.Freeze, ballot=BALLOT, reason=PROSE)),
    (
        messages.Install,
        record(
            messages.Install,
            view=VIEW,
            from_epoch=BALLOT,
            verdict=verdict(REASON),
            repairs=REPAIRS,
            redials=sequence(REDIAL, types.MEMBERS_MAX),
            departures=sequence(DEPARTURE, types.MEMBERS_MAX),
            switch=SWITCH,
            reason=PROSE,
            scopes=sequence(SCOPE_VERDICT, types.SCOPES_MAX),
        ),
    ),
    (messages.Prepare, record(messages.Prepare, view=VIEW, switch=SWITCH)),
    (messages.Commit, record(messages.Commit, ballot=BALLOT)),
    (messages.Abandon, record(messages.Abandon, ballot=BALLOT, reason=PROSE)),
    (messages.Fenced, record(messages.Fenced, epoch=BALLOT, reason=PROSE)),
    (messages.Left, record(messages.Left, epoch=BALLOT)),
    (
        messages.Figures,
        record(
            messages.Figures,
            incarnation=INCARNATION,
            links=sequence(LINK_FIGURES, types.MEMBERS_MAX),
        ),
    ),
)
KIND_OF = {cls: kind for kind, (cls, _) in enumerate(KINDS)}


def encode(message: Message) -> bytes:
    """The message as bytes. WireError: a field is out of its range, or all of it too large."""
    kind = KIND_OF.get(type(message))
    if kind is None:
        raise WireError(f"{type(message).__name__} is no message")
    fields = within(type(message).__name__, KINDS[kind][1].pack, message)
    encoded: bytes = msgpack.packb([VERSION, kind, *fields])
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise WireError(f"{type(message).__name__} of {len(encoded)} bytes is too large")
    return encoded


def decode(encoded: bytes) -> Message:
    """The message that the bytes hold. WireError: they hold none, and why."""
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise WireError(f"{len(encoded)} bytes are too large for a message")
    plain = unpacked(encoded)
    if type(plain) is not list or len(plain) < 2:
        raise WireError("no list of version, kind and fields")
    version, kind, *fields = plain
    if type(version) is not int or version != VERSION:
        raise WireError(f"version {shown(version)}, this is {VERSION}")
    if type(kind) is not int or not 0 <= kind < len(KINDS):
        raise WireError(f"no message is of kind {shown(kind)}")
    cls, codec = KINDS[kind]
    message: Message = within(cls.__name__, codec.unpack, fields)
    return message


def encode_view(view: types.View) -> bytes:
    """A view as bytes, for a file. WireError as `encode`."""
    encoded: bytes = msgpack.packb([VERSION, within("View", VIEW.pack, view)])
    return encoded


def decode_view(encoded: bytes) -> types.View:
    """The view that the bytes hold. WireError: they hold none, and why."""
    plain = unpacked(encoded)
    if type(plain) is not list or len(plain) != 2 or plain[0] != VERSION:
        raise WireError(f"no view of version {VERSION}")
    view: types.View = within("View", VIEW.unpack, plain[1])
    return view


def unpacked(encoded: bytes) -> Any:
    try:
        return msgpack.unpackb(
            encoded,
            raw=False,
            strict_map_key=True,
            max_str_len=4 * PROSE_CHARS_MAX,
            max_array_len=2 * types.MEMBERS_MAX,
            max_bin_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack documents no closed set of them
        raise WireError(f"no msgpack: {type(error).__name__}: {str(error)[:200]}") from None
