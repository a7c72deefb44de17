/*
 * The levels of the hierarchical algorithm: either digits of the rank in a mixed radix (innermost
 * first, all groups of a level alike), or two levels of hosts with different numbers of ranks.
 */
#ifndef COL_PLAN_PLAN_LEVELS_H
#define COL_PLAN_PLAN_LEVELS_H

#include "plan/plan_build.h"

#define COL_LEVELS_MAX 4u

struct col_levels {
	uint32_t world;
	uint32_t count;                       /* of digits; 0: hosts */
	uint32_t radices[COL_LEVELS_MAX];
	uint32_t strides[COL_LEVELS_MAX + 1]; /* product of the radices before */
	uint32_t host_count;                  /* hosts that have ranks, numbered through */
	uint32_t *hosts;                      /* by rank; owned, as the rest */
	uint32_t *indices;                    /* by rank: its place among its host's */
	uint32_t *begins;                     /* by host: of its members; host_count + 1 */
	uint32_t *members;                    /* ranks by host */
};

/* COLLECT_E_INVALID: the recipe's levels do not fit the world. COLLECT_E_MEMORY. Fini is due in any
 * case. */
int col__levels_init(struct col_levels *levels, const struct col_request *request);
void col__levels_fini(struct col_levels *levels);

static inline uint32_t col__levels_digit(const struct col_levels *levels, uint32_t rank,
                                         uint32_t level)
{
	return rank / levels->strides[level] % levels->radices[level];
}

/* `rank` with another digit. */
static inline uint32_t col__levels_with(const struct col_levels *levels, uint32_t rank,
                                        uint32_t level, uint32_t digit)
{
	uint32_t stride = levels->strides[level];
	return rank - col__levels_digit(levels, rank, level) * stride + digit * stride;
}

static inline uint32_t col__levels_host_size(const struct col_levels *levels, uint32_t host)
{
	return levels->begins[host + 1] - levels->begins[host];
}

/* The rank of `host` that stands for what place `index` of another host does. */
static inline uint32_t col__levels_member(const struct col_levels *levels, uint32_t host,
                                          uint32_t index)
{
	return levels->members[levels->begins[host] + index % col__levels_host_size(levels, host)];
}

/* The lanes of an all-to-all; plan_transit.c. COLLECT_E_MEMORY. */
int col__transit_add(struct collect_plan *plan, const struct col_levels *levels);

#endif
