"""The caller's words for types, reductions and algorithms → the numbers of collect.h."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from collect import native
from collect.errors import InvalidArgument


class Collective(IntEnum):
    """enum collect_collective."""

    ALL_REDUCE = 0
    REDUCE_SCATTER = 1
    ALL_GATHER = 2
    ALL_TO_ALL = 3
    BROADCAST = 4
    REDUCE = 5
    GATHER = 6
    SCATTER = 7
    BARRIER = 8

    @property
    def is_reduction(self) -> bool:
        return self in (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER, Collective.REDUCE)


# NumPy dtype → enum collect_dtype.
DTYPE_CODES: dict[Any, int] = {
    np.dtype(np.int8): 0,
    np.dtype(np.int16): 1,
    np.dtype(np.int32): 2,
    np.dtype(np.int64): 3,
    np.dtype(np.uint8): 4,
    np.dtype(np.uint16): 5,
    np.dtype(np.uint32): 6,
    np.dtype(np.uint64): 7,
    np.dtype(np.float16): 8,
    np.dtype(np.float32): 10,
    np.dtype(np.float64): 11,
    np.dtype(np.bool_): 12,
    np.dtype(np.complex64): 13,
    np.dtype(np.complex128): 14,
}
BFLOAT16 = "bfloat16"  # NumPy has none: it is known by its name, and its memory passed as int16
BFLOAT16_CODE = 9
DTYPE_NAMES = {code: str(dtype) for dtype, code in DTYPE_CODES.items()} | {BFLOAT16_CODE: BFLOAT16}
ALLOWED_DTYPES = ", ".join(DTYPE_NAMES[code] for code in sorted(DTYPE_NAMES))

# The caller's word → enum collect_reduce_op.
REDUCE_CODES: dict[str, int] = {
    "sum": 0,
    "avg": 1,
    "min": 2,
    "max": 3,
    "prod": 4,
    "and": 5,
    "or": 6,
    "xor": 7,
    "premul_sum": 8,
}
PREMUL_SUM = "premul_sum"

_INTEGER_OPS = ("sum", "avg", "min", "max", "prod", "and", "or", "xor")
_FLOAT_OPS = ("sum", "avg", "min", "max", "prod", PREMUL_SUM)
_BOOL_OPS = ("sum", "min", "max", "prod", "and", "or", "xor")
_COMPLEX_OPS = ("sum", "avg", "prod", PREMUL_SUM)
OPS_OF_DTYPE: dict[int, tuple[str, ...]] = {
    **dict.fromkeys(range(8), _INTEGER_OPS),
    **dict.fromkeys(range(8, 12), _FLOAT_OPS),
    12: _BOOL_OPS,
    13: _COMPLEX_OPS,
    14: _COMPLEX_OPS,
}

# The caller's word → enum collect_algorithm.
ALGORITHM_CODES: dict[str, int] = {
    "auto": -1,
    "direct": 0,
    "ring": 1,
    "star": 2,
    "exchange": 3,
    "tree": 4,
    "circulant": 5,
    "recursive_doubling": 6,
    "hierarchical": 7,
    "pairwise": 8,
    "bruck": 9,
}
# And back, for results; with the user's own, whose numbers mean the same in every group.
ALGORITHM_NAMES = {code: name for name, code in ALGORITHM_CODES.items()}


class Signature:
    """What a call does, apart from its memory. `struct`: the core's, filled by Communicator."""

    __slots__ = ("algorithm", "collective", "dtype", "is_produced", "reduce_op", "struct")

    def __init__(self, collective: Collective, dtype: int, reduce_op: int, algorithm: int) -> None:
        self.collective = collective
        self.dtype = dtype
        self.reduce_op = reduce_op
        self.algorithm = algorithm
        self.is_produced = False
        self.struct: Any = None

    def to_be_produced(self) -> Signature:
        """The same, of a source that is written while the operation is under way. For one call: it
        has a struct of its own."""
        made = Signature(self.collective, self.dtype, self.reduce_op, self.algorithm)
        made.is_produced = True
        return made


class Signatures:
    """The signatures that a group has used; checked once, when they are first asked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[Collective, int, str, str], Signature] = {}
        self._defined: dict[tuple[str, Collective], int] = {}

    def define(self, name: str, collective: str, number: int) -> None:
        """Lets calls name an algorithm of the user's own."""
        self._defined[name, Collective[collective.upper()]] = number
        ALGORITHM_NAMES[number] = name

    def get(self, collective: Collective, dtype: int, op: str, algorithm: str) -> Signature:
        """Raises InvalidArgument for what cannot be, naming what is allowed."""
        try:
            return self._known[collective, dtype, op, algorithm]
        except (KeyError, TypeError):
            pass
        made = Signature(
            collective,
            dtype,
            reduce_code(op, dtype) if collective.is_reduction else 0,
            self._algorithm_code(algorithm, collective),
        )
        self._known[collective, dtype, op, algorithm] = made
        return made

    def _algorithm_code(self, algorithm: str, collective: Collective) -> int:
        defined = {name: code for (name, of), code in self._defined.items() if of is collective}
        if isinstance(algorithm, str) and algorithm in defined:
            return defined[algorithm]
        return algorithm_code(algorithm, collective, tuple(defined))


def reduce_code(op: str, dtype: int) -> int:
    """Reads the caller's reduction of elements of this type."""
    allowed = OPS_OF_DTYPE[dtype]
    if not isinstance(op, str) or op not in REDUCE_CODES:
        names = ", ".join(repr(name) for name in REDUCE_CODES)
        raise InvalidArgument(f"op is {op!r}; it must be one of {names}")
    if op not in allowed:
        names = ", ".join(repr(name) for name in allowed)
        raise InvalidArgument(f"op {op!r} of {DTYPE_NAMES[dtype]} is not defined; allowed: {names}")
    return REDUCE_CODES[op]


def algorithm_code(algorithm: str, collective: Collective, defined: tuple[str, ...] = ()) -> int:
    """Reads the caller's algorithm. defined: names that would do besides the built-in ones."""
    code = ALGORITHM_CODES.get(algorithm) if isinstance(algorithm, str) else None
    if code == ALGORITHM_CODES["auto"]:
        return code
    if code is None or not native.lib.collect_algorithm_has(code, int(collective)):
        names = [
            repr(name)
            for name, each in ALGORITHM_CODES.items()
            if each < 0 or native.lib.collect_algorithm_has(each, int(collective))
        ]
        raise InvalidArgument(
            f"algorithm {algorithm!r} cannot do {collective.name.lower()}; "
            f"it must be one of {', '.join([*names, *map(repr, defined)])}"
        )
    return code
