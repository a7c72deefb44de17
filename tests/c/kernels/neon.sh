#!/bin/sh
# Compiles the kernels and their tests for AArch64 and runs them in an emulator. Exits 77 where
# the compiler or the emulator is missing. Usage: neon.sh [folder for what is built]
set -eu
cd "$(dirname "$0")/../../.."
compiler=aarch64-linux-gnu-gcc
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
if [ -z "$emulator" ] || ! command -v $compiler >/dev/null; then
	echo "skipped: needs $compiler and qemu-aarch64"
	exit 77
fi
folder=${1:-}
if [ -z "$folder" ]; then
	folder=$(mktemp -d)
	trap 'rm -rf "$folder"' EXIT
fi
flags="-std=gnu11 -D_GNU_SOURCE -DCOL_HAVE_NEON -O2 -ffp-contract=off -static -Wall -Wextra -Werror"
flags="$flags -Icsrc -Icsrc/include -Itests/c"
failed=0
for name in dtype dispatch reduce reduce_many; do
	$compiler $flags tests/c/kernels/test_$name.c tests/c/harness.c \
		csrc/kernels/dispatch.c csrc/kernels/dtype.c csrc/kernels/reduce_scalar.c \
		csrc/kernels/reduce_neon.c csrc/base/alloc.c csrc/base/assert.c csrc/base/clock.c \
		csrc/base/prng.c -o "$folder/test_$name" -lpthread -lm
	TEST_ALARM_S=600 "$emulator" "$folder/test_$name" || failed=1
done
exit $failed
