"""Writes the C source of collect.native._lib from the public header, the only truth."""

import os
from pathlib import Path

from cffi import FFI

header = Path(os.environ["COLLECT_HEADER"]).read_text()
declarations = header.split("/* cffi: begin */")[1].split("/* cffi: end */")[0]

ffibuilder = FFI()
ffibuilder.cdef(declarations.replace("COLLECT_API ", ""))
ffibuilder.set_source("collect.native._lib", '#include "include/collect.h"')
