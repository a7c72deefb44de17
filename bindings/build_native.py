"""Writes the C source of collect.native._lib from the public headers, the only truth."""

import os
from pathlib import Path

from cffi import FFI

headers = [Path(path).read_text() for path in os.environ["COLLECT_HEADERS"].split(os.pathsep)]
parts = [text.split("/* cffi: begin */")[1].split("/* cffi: end */")[0] for text in headers]

ffibuilder = FFI()
ffibuilder.cdef("\n".join(parts).replace("COLLECT_API ", ""))
ffibuilder.set_source("collect.native._lib", '#include "include/collect.h"')
