#include "plan/plan_levels.h"

#include "base/alloc.h"

static int digits_init(struct col_levels *levels, uint32_t count, const uint32_t *radices)
{
	uint64_t product = 1;
	if (count > COL_LEVELS_MAX)
		return COLLECT_E_INVALID;
	levels->count = count;
	for (uint32_t level = 0; level < count; level++) {
		levels->strides[level] = (uint32_t)product;
		levels->radices[level] = radices[level];
		product *= radices[level];
		if (product == 0 || product > levels->world)
			return COLLECT_E_INVALID;
	}
	levels->strides[count] = (uint32_t)product;
	return product == levels->world ? 0 : COLLECT_E_INVALID;
}

/* Hosts without ranks are left out: numbers[h] becomes h's number among the others. */
static int hosts_number(struct col_levels *levels, const uint32_t *hosts, uint32_t *numbers)
{
	for (uint32_t rank = 0; rank < levels->world; rank++) {
		if (hosts[rank] >= levels->world)
			return COLLECT_E_INVALID;
		numbers[hosts[rank]] = 1;
	}
	for (uint32_t host = 0; host < levels->world; host++)
		numbers[host] = numbers[host] != 0 ? levels->host_count++ : COL_RANK_NONE;
	return 0;
}

static int hosts_init(struct col_levels *levels, const uint32_t *hosts)
{
	uint32_t world = levels->world;
	levels->hosts = col_alloc_zeroed(world, sizeof(uint32_t));
	levels->indices = col_alloc_zeroed(world, sizeof(uint32_t));
	levels->members = col_alloc_zeroed(world, sizeof(uint32_t));
	levels->begins = col_alloc_zeroed(world + 1, sizeof(uint32_t));
	if (levels->hosts == NULL || levels->indices == NULL || levels->members == NULL ||
	    levels->begins == NULL)
		return COLLECT_E_MEMORY;
	uint32_t *numbers = levels->members; /* until the members are known */
	int status = hosts_number(levels, hosts, numbers);
	if (status < 0)
		return status;

	for (uint32_t rank = 0; rank < world; rank++) {
		uint32_t host = numbers[hosts[rank]];
		levels->hosts[rank] = host;
		levels->indices[rank] = levels->begins[host + 1]++;
	}
	for (uint32_t host = 0; host < levels->host_count; host++)
		levels->begins[host + 1] += levels->begins[host];
	for (uint32_t rank = 0; rank < world; rank++)
		levels->members[levels->begins[levels->hosts[rank]] + levels->indices[rank]] = rank;
	return 0;
}

int col__levels_init(struct col_levels *levels, const struct col_request *request)
{
	const struct collect_recipe *recipe = request->recipe;
	*levels = (struct col_levels){.world = request->world};
	if (recipe->level_count > 0)
		return digits_init(levels, recipe->level_count, recipe->radices);
	if (recipe->hosts != NULL)
		return hosts_init(levels, recipe->hosts);
	return digits_init(levels, 1, &request->world);
}

void col__levels_fini(struct col_levels *levels)
{
	col_free(levels->hosts);
	col_free(levels->indices);
	col_free(levels->begins);
	col_free(levels->members);
}
