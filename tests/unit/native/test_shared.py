"""Arrays in shared memory live as long as their last view."""

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import collect
from collect import native
from collect.errors import InvalidArgument


class Memory:
    """What the core gives out, and what it got back."""

    def __init__(self, ffi: Any) -> None:
        self.ffi = ffi
        self.blocks: list[Any] = []
        self.freed: list[Any] = []
        self.is_empty = False

    def collect_shared_alloc(self, byte_count: int) -> Any:
        if self.is_empty:
            return self.ffi.NULL
        self.blocks.append(self.ffi.new("char[]", byte_count))
        return self.ffi.cast("void *", self.blocks[-1])

    def collect_shared_free(self, memory: Any) -> None:
        self.freed.append(memory)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    pytest.importorskip("collect.native._lib", reason="the native module is not built")
    made = Memory(native.ffi)
    lib = SimpleNamespace(
        collect_shared_alloc=made.collect_shared_alloc, collect_shared_free=made.collect_shared_free
    )
    monkeypatch.setitem(vars(native), "lib", lib)
    monkeypatch.setattr(native, "require", lambda: None)
    return made


@pytest.mark.parametrize("shape", [5, (), (0,), (2, 3), (3, 0, 2)])
@pytest.mark.parametrize("dtype", ["float64", "int8", "bool", "complex128", "float16"])
def test_arrays_have_their_shape_and_type(memory: Memory, shape: Any, dtype: str) -> None:
    array = collect.zeros(shape, dtype)

    assert (array.shape, array.dtype) == (np.zeros(shape).shape, np.dtype(dtype))
    assert array.flags.carray
    assert not array.any()
    assert len(memory.blocks[-1]) == max(array.nbytes, 1)


def test_memory_is_freed_with_the_last_view(memory: Memory) -> None:
    array = collect.empty((4, 4))
    view = array[1:].T
    del array
    gc.collect()
    assert memory.freed == []

    view[:] = 1.0
    del view
    gc.collect()
    assert len(memory.freed) == 1


def test_types_beyond_numpy_are_taken(memory: Memory) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")

    assert collect.empty(3, ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
    assert len(memory.blocks[0]) == 6


def test_what_cannot_be_is_refused(memory: Memory) -> None:
    with pytest.raises(InvalidArgument, match="no length may be negative"):
        collect.empty((2, -1))
    with pytest.raises(InvalidArgument, match="Python objects"):
        collect.empty(3, object)
    with pytest.raises(InvalidArgument, match="too many"):
        collect.empty((1 << 40, 1 << 40))
    memory.is_empty = True
    with pytest.raises(MemoryError, match="24 bytes of shared memory"):
        collect.zeros(3)
