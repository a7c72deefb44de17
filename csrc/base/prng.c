#include "base/prng.h"

#include "base/assert.h"

static uint64_t rotate_left(uint64_t value, unsigned bits)
{
	return (value << bits) | (value >> (64 - bits));
}

/* splitmix64 (Steele, Lea and Flood 2014): spreads any seed, 0 too, over the whole state. */
static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void col_prng_init(struct col_prng *prng, uint64_t seed)
{
	for (int word = 0; word < 4; word++)
		prng->state[word] = splitmix64(&seed);
}

uint64_t col_prng_next(struct col_prng *prng)
{
	uint64_t *s = prng->state;
	uint64_t result = rotate_left(s[1] * 5, 7) * 9;
	uint64_t shifted = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= shifted;
	s[3] = rotate_left(s[3], 45);
	return result;
}

uint64_t col_prng_below(struct col_prng *prng, uint64_t limit)
{
	COL_ASSERT(limit > 0);
	/* Draws below 2^64 mod limit are drawn again: what is left is a whole number of limits. */
	uint64_t rejected = (0 - limit) % limit;
	uint64_t drawn;
	do {
		drawn = col_prng_next(prng);
	} while (drawn < rejected);
	return drawn % limit;
}
