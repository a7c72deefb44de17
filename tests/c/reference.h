/*
 * What every collective must give, computed from its definition: nothing here knows plans, kernels
 * or memory layouts of the library. Elements are small integers, which every type holds exactly and
 * every order of reduction gives the same of; so results are compared bit by bit.
 */
#ifndef COL_TEST_REFERENCE_H
#define COL_TEST_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REFERENCE_WORLD_MAX 9u

struct reference {
	int collective;
	int dtype;
	int reduce_op;
	uint32_t world;
	uint32_t root;  /* rank */
	uint64_t seed;  /* of the elements */
	/* Elements of the payload (counts[0][0]), of each block b (counts[0][b]), or of what s sends
	 * to d in an all-to-all (counts[s][d]). */
	uint64_t counts[REFERENCE_WORLD_MAX][REFERENCE_WORLD_MAX];
};

/* Whether the operation is defined for the type. */
bool reference_is_defined(int dtype, int reduce_op);
bool reference_has_blocks(int collective);
bool reference_has_root(int collective);
bool reference_reduces(int collective);
/* What a rank's source holds, and what its target must hold; written to out unless that is NULL.
 * Bytes. */
size_t reference_source(const struct reference *reference, uint32_t rank, uint8_t *out);
size_t reference_target(const struct reference *reference, uint32_t rank, uint8_t *out);
/* The rank's factor of PREMUL_SUM. */
double reference_factor(uint32_t rank);

#endif
