"""`collect coordinator`: a coordinator in the foreground, until a signal stops it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from collect.cli.children import COORDINATOR_SAYS
from collect.cli.usage import address, liveness_timeout
from collect.net.coordinator import CoordinatorService

DEFAULT_BIND = "127.0.0.1:0"
DEFAULT_TIMEOUT_S = 5.0
READ_BYTES = 1 << 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--bind",
        type=address,
        metavar="HOST:PORT",
        default=DEFAULT_BIND,
        help="where to listen; port 0 takes a free one (default %(default)s)",
    )
    add(
        "--timeout",
        type=liveness_timeout,
        metavar="S",
        default=DEFAULT_TIMEOUT_S,
        help="seconds of silence that count as death, for all peers (default %(default)g)",
    )
    add("--state", type=Path, metavar="FILE", help="keep the number of this start in a file")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add("--until-eof", action="store_true", help="also stop when standard input ends")


def run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    stop = threading.Event()
    handlers = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    service = CoordinatorService(
        str(arguments.bind), timeout=arguments.timeout, state_path=arguments.state
    )
    try:
        print(f"collect coordinator: {COORDINATOR_SAYS}{service.start()}", flush=True)
        if arguments.until_eof:
            threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
        stop.wait()
    finally:
        service.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def _wait_for_eof(stop: threading.Event) -> None:
    """Reads below Python's buffers: a thread in a buffered read would hold up the exit."""
    while os.read(sys.stdin.fileno(), READ_BYTES):
        pass
    stop.set()
