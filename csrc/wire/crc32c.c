/*
 * CRC-32C: the machine's instruction where it has one, else tables for eight bytes at a time
 * ("slicing-by-8", Kounavis and Berry 2005). Bits are reflected: the lowest bit of a byte is the
 * highest power of the polynomial.
 */
#include <pthread.h>
#include <string.h>

#include "base/assert.h"
#include "kernels/kernels.h"
#include "wire/frame.h"

#define POLYNOMIAL_REFLECTED 0x82f63b78u

static pthread_once_t tables_once = PTHREAD_ONCE_INIT;
/* tables[n][byte]: the remainder of `byte` followed by n zero bytes. */
static uint32_t tables[8][256];

static void tables_init(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t remainder = byte;
		for (int bit = 0; bit < 8; bit++)
			remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? POLYNOMIAL_REFLECTED : 0);
		tables[0][byte] = remainder;
	}
	for (int zeros = 1; zeros < 8; zeros++) {
		for (uint32_t byte = 0; byte < 256; byte++) {
			uint32_t previous = tables[zeros - 1][byte];
			tables[zeros][byte] = (previous >> 8) ^ tables[0][previous & 0xff];
		}
	}
}

uint32_t col_crc32c_scalar(const void *bytes, size_t count)
{
	int result = pthread_once(&tables_once, tables_init);
	COL_ASSERT(result == 0);

	const uint8_t *next = bytes;
	uint32_t crc = 0xffffffffu;
	for (; count >= 8; count -= 8, next += 8) {
		crc ^= (uint32_t)next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16
		       | (uint32_t)next[3] << 24;
		crc = tables[7][crc & 0xff] ^ tables[6][crc >> 8 & 0xff] ^ tables[5][crc >> 16 & 0xff]
		      ^ tables[4][crc >> 24] ^ tables[3][next[4]] ^ tables[2][next[5]]
		      ^ tables[1][next[6]] ^ tables[0][next[7]];
	}
	for (; count > 0; count--, next++)
		crc = (crc >> 8) ^ tables[0][(crc ^ *next) & 0xff];
	return ~crc;
}

#ifdef __x86_64__

#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(const void *bytes,
                                                                     size_t count)
{
	const uint8_t *next = bytes;
	uint64_t crc = 0xffffffffu;
	for (; count >= 8; count -= 8, next += 8) {
		uint64_t word;
		memcpy(&word, next, sizeof(word));
		crc = _mm_crc32_u64(crc, word);
	}
	uint32_t rest = (uint32_t)crc;
	for (; count > 0; count--, next++)
		rest = _mm_crc32_u8(rest, *next);
	return ~rest;
}

uint32_t col_crc32c(const void *bytes, size_t count)
{
	return col_cpu_has_crc32c() ? crc32c_instruction(bytes, count)
	                            : col_crc32c_scalar(bytes, count);
}

#else

uint32_t col_crc32c(const void *bytes, size_t count)
{
	return col_crc32c_scalar(bytes, count);
}

#endif
