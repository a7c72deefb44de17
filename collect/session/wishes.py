"""What a peer asked for that the founders of its group decide: it is told, and follows."""

from __future__ import annotations

import logging

from collect.config import Config, Transport
from collect.native.plan import algorithm_code
from collect.types import (
    ALGORITHM_AUTO,
    COMMIT_BYTES_DEFAULT,
    TRANSPORT_AUTO,
    TRANSPORT_TCP,
    Recipe,
)

log = logging.getLogger("collect")

TRANSPORT_CODES = {Transport.AUTO: TRANSPORT_AUTO, Transport.TCP: TRANSPORT_TCP}


def compare_wishes(config: Config, recipe: Recipe) -> None:
    """Warns of each setting that the group's recipe has otherwise."""
    wishes = (
        (
            f"algorithm {config.algorithm.value}",
            algorithm_code(config.algorithm),
            ALGORITHM_AUTO,
            recipe.algorithm,
        ),
        (
            f"commit_bytes {config.commit_bytes}",
            config.commit_bytes,
            COMMIT_BYTES_DEFAULT,
            recipe.commit_bytes,
        ),
        (
            f"transport {config.transport.value}",
            TRANSPORT_CODES[config.transport],
            TRANSPORT_AUTO,
            recipe.transport,
        ),
    )
    for told, wish, none, decided in wishes:
        if wish not in (none, decided):
            log.warning(
                "%s asked for %s; group %r uses its founders' (number %d)",
                *(config.name, told, config.group, decided),
            )
