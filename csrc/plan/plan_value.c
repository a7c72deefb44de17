#include "plan/plan_value.h"

#include <string.h>

#include "base/alloc.h"
#include "plan/plan.h"

#define SETS_FIRST 64u

void col_values_init(struct col_values *values, uint32_t rank_count)
{
	*values = (struct col_values){
		.rank_count = rank_count,
		.word_count = (rank_count + 63) / 64,
	};
}

void col_values_fini(struct col_values *values)
{
	col_free(values->sets);
	col_free(values->free_sets);
	*values = (struct col_values){0};
}

static bool is_set(const struct col_values *values, uint32_t value)
{
	return value >= values->rank_count && value < COL_VALUE_FINAL;
}

static uint64_t *set_of(const struct col_values *values, uint32_t value)
{
	return values->sets + (size_t)(value - values->rank_count) * values->word_count;
}

static bool holds(const struct col_values *values, uint32_t value, uint32_t rank)
{
	if (value == COL_VALUE_FULL)
		return true;
	if (!is_set(values, value))
		return value == rank;
	return (set_of(values, value)[rank / 64] >> (rank % 64) & 1) != 0;
}

uint32_t col_value_common(const struct col_values *values, uint32_t a, uint32_t b)
{
	for (uint32_t rank = 0; rank < values->rank_count; rank++)
		if (holds(values, a, rank) && holds(values, b, rank))
			return rank;
	return COL_RANK_NONE;
}

uint32_t col_value_missing(const struct col_values *values, uint32_t value)
{
	for (uint32_t rank = 0; rank < values->rank_count; rank++)
		if (!holds(values, value, rank))
			return rank;
	return COL_RANK_NONE;
}

static int grow(struct col_values *values)
{
	uint32_t count = values->set_count == 0 ? SETS_FIRST : values->set_count * 2;
	uint64_t *sets = col_alloc_zeroed(count, values->word_count * sizeof(*sets));
	uint32_t *free_sets = col_alloc_zeroed(count, sizeof(*free_sets));
	if (sets == NULL || free_sets == NULL) {
		col_free(sets);
		col_free(free_sets);
		return COLLECT_E_MEMORY;
	}
	if (values->set_count > 0)
		memcpy(sets, values->sets,
		       (size_t)values->set_count * values->word_count * sizeof(*sets));
	for (uint32_t place = values->set_count; place < count; place++)
		free_sets[values->free_count++] = place;
	col_free(values->sets);
	col_free(values->free_sets);
	values->sets = sets;
	values->free_sets = free_sets;
	values->set_count = count;
	return 0;
}

/* A set that equals a single contribution or another set. */
static int set_make(struct col_values *values, uint32_t value, uint32_t *set_out)
{
	if (values->free_count == 0) {
		int status = grow(values);
		if (status < 0)
			return status;
	}
	uint32_t made = values->rank_count + values->free_sets[--values->free_count];
	uint64_t *set = set_of(values, made);
	memset(set, 0, values->word_count * sizeof(*set));
	if (is_set(values, value))
		memcpy(set, set_of(values, value), values->word_count * sizeof(*set));
	else
		set[value / 64] = (uint64_t)1 << (value % 64);
	*set_out = made;
	return 0;
}

int col_value_add(struct col_values *values, uint32_t *sum, uint32_t part)
{
	if (!is_set(values, *sum)) {
		int status = set_make(values, *sum, sum);
		if (status < 0)
			return status;
	}
	uint64_t *target = set_of(values, *sum);
	if (is_set(values, part)) {
		const uint64_t *source = set_of(values, part);
		for (uint32_t word = 0; word < values->word_count; word++)
			target[word] |= source[word];
	} else {
		target[part / 64] |= (uint64_t)1 << (part % 64);
	}
	col_value_free(values, part);
	return 0;
}

int col_value_copy(struct col_values *values, uint32_t value, uint32_t *copy_out)
{
	if (is_set(values, value))
		return set_make(values, value, copy_out);
	*copy_out = value;
	return 0;
}

void col_value_free(struct col_values *values, uint32_t value)
{
	if (is_set(values, value))
		values->free_sets[values->free_count++] = value - values->rank_count;
}
