"""Compiles each header of csrc alone and included twice. Usage: header_test.py csrc cc..."""

import pathlib
import subprocess
import sys

FLAGS = "-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wundef -Werror -fsyntax-only -x c -"
# Bodies of loops that each instruction set fills in: no header to include anywhere else.
TEMPLATES = {"kernels/reduce_vector.h"}


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    found = sorted(root.rglob("*.h"))
    headers = [each for each in found if each.relative_to(root).as_posix() not in TEMPLATES]
    if not headers:
        print(f"Bail out! no headers under {root}")
        return 1
    print(f"1..{len(headers)}")
    failed = 0
    for number, header in enumerate(headers, start=1):
        name = header.relative_to(root)
        command = [*sys.argv[2:], f"-I{root}", f"-I{root / 'include'}", *FLAGS.split()]
        include = f'#include "{name}"\n'
        result = subprocess.run(
            command, check=False, input=include * 2, capture_output=True, text=True
        )
        for line in result.stderr.splitlines():
            print("#", line)
        print("ok" if result.returncode == 0 else "not ok", number, name)
        failed += result.returncode != 0
    print(f"# {len(headers) - failed} passed, {failed} failed")
    return int(failed > 0)


sys.exit(main())
