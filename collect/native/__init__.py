"""The Python face of the C core: the only importer of the compiled module.

`ffi` and `lib` are loaded at first use, so that what needs no C can be imported and tested alone.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in {"ffi", "lib"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from collect.native import _lib  # noqa: PLC0415  not before it is needed
    except ImportError as error:
        raise ImportError(
            f"the C core of collect is not built or does not load ({error}); run `make dev`"
        ) from error
    globals().update(ffi=_lib.ffi, lib=_lib.lib)
    return globals()[name]


def require() -> None:
    """Raises ImportError, with what to do, when the C core cannot be loaded."""
    __getattr__("lib")
