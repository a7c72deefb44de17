/*
 * A seeded generator (xoshiro256**, Blackman and Vigna 2021, seeded by splitmix64): for jitter and
 * tests, not for secrets.
 */
#ifndef COL_BASE_PRNG_H
#define COL_BASE_PRNG_H

#include <stdint.h>

struct col_prng {
	uint64_t state[4];
};

void col_prng_init(struct col_prng *prng, uint64_t seed);
uint64_t col_prng_next(struct col_prng *prng);
/* Uniform in [0, limit); limit > 0. */
uint64_t col_prng_below(struct col_prng *prng, uint64_t limit);

#endif
