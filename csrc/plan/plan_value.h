/*
 * What a buffer or a frame holds while plans are checked: which ranks' contributions it is the sum
 * of. A value is a number: below rank_count it is that rank's contribution alone, VALUE_* are the
 * ends of a sum's life, and anything else is a set in a pool. Single contributions and results,
 * which are nearly all frames, need no set.
 */
#ifndef COL_PLAN_PLAN_VALUE_H
#define COL_PLAN_PLAN_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#define COL_VALUE_NONE 0xffffffffu  /* nothing was written */
#define COL_VALUE_FULL 0xfffffffeu  /* every contribution once, and scaled */
#define COL_VALUE_FINAL 0xfffffffdu /* FULL, and declared so; only in OUT */

struct col_values {
	uint32_t rank_count;
	uint32_t word_count; /* of one set */
	uint64_t *sets;      /* owned */
	uint32_t *free_sets; /* owned */
	uint32_t set_count;
	uint32_t free_count;
};

void col_values_init(struct col_values *values, uint32_t rank_count);
void col_values_fini(struct col_values *values);

/* The lowest rank that is in both; COL_RANK_NONE. Neither may be NONE or FINAL. */
uint32_t col_value_common(const struct col_values *values, uint32_t a, uint32_t b);
/* The lowest rank that is missing; COL_RANK_NONE. */
uint32_t col_value_missing(const struct col_values *values, uint32_t value);

/* Two values without a common rank become one; takes both. COLLECT_E_MEMORY. */
int col_value_add(struct col_values *values, uint32_t *sum, uint32_t part);
/* COLLECT_E_MEMORY. */
int col_value_copy(struct col_values *values, uint32_t value, uint32_t *copy_out);
void col_value_free(struct col_values *values, uint32_t value);

#endif
