/*
 * Arrays in memory of collect_shared_alloc are read, and written, where they are.
 *
 * Each rank has a table of the allocations that its calls used, with a version; the others map what
 * is new in it when they start an operation, and say in their announcement of that operation
 * which version they have mapped. All ranks read the same announcements, so they agree without
 * another word on whether everybody can reach every array: not the first time that an array is
 * used, and from then on. Whatever cannot be mapped is treated as private.
 *
 * Who has a private source knows by itself that the operation goes through the segment, and does
 * not wait for announcements.
 *
 * The operation is done when all ranks have finished what they read and write.
 */
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "shm/state.h"

#define PART_BYTES ((size_t)16 << 10)    /* stays in the first-level cache */
#define ADVANCE_BYTES ((size_t)1 << 20)  /* what one call moves, about */
#define STREAMING_BYTES ((size_t)4 << 20) /* longer targets bypass the cache */

/* ---- the own table ------------------------------------------------------------------------- */

static struct segment_rank *own_rank(const struct col_shm *shm)
{
	return &shm->ranks[shm->rank];
}

static uint32_t table_begin(struct col_shm *shm)
{
	_Atomic uint32_t *version = &own_rank(shm)->table_version;
	uint32_t now = atomic_load_explicit(version, memory_order_relaxed);
	atomic_store_explicit(version, now + 1, memory_order_relaxed);
	return now + 2;
}

static void table_end(struct col_shm *shm, uint32_t version)
{
	atomic_store_explicit(&own_rank(shm)->table_version, version, memory_order_release);
}

/* Each word is ordered after the odd version that precedes it, and read before the version is read
 * again. */
static uint64_t get(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void set(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* Entries of allocations that are gone make room, and let the others unmap them. */
static void table_scrub(struct col_shm *shm)
{
	uint64_t releases = col__heap_releases();
	if (releases == shm->heap_releases)
		return;
	shm->heap_releases = releases;
	uint32_t version = table_begin(shm);
	for (uint32_t index = 0; index < COL__ENTRIES_MAX; index++) {
		struct segment_entry *entry = &own_rank(shm)->table[index];
		if (get(&entry->inode) != 0 && !col__heap_has(get(&entry->inode), get(&entry->device)))
			set(&entry->inode, 0);
	}
	table_end(shm, version);
}

static uint32_t table_add(struct col_shm *shm, uint32_t index, const struct col__place *place)
{
	struct segment_entry *entry = &own_rank(shm)->table[index];
	uint32_t version = table_begin(shm);
	set(&entry->inode, place->inode);
	set(&entry->device, place->device);
	set(&entry->bytes, place->bytes);
	atomic_store_explicit(&entry->process, (uint32_t)getpid(), memory_order_release);
	atomic_store_explicit(&entry->descriptor, (uint32_t)place->descriptor, memory_order_release);
	table_end(shm, version);
	shm->entry_since[index] = version;
	return index;
}

/* Where an array of this rank is in its table; the entry is new if need be. */
static struct segment_array array_of(struct col_shm *shm, const void *memory, size_t bytes)
{
	struct segment_array array = {.entry = COL__ENTRIES_MAX};
	struct col__place place;
	if (bytes == 0 || !col__heap_find(memory, bytes, &place))
		return array;
	uint32_t empty = COL__ENTRIES_MAX;
	for (uint32_t index = 0; index < COL__ENTRIES_MAX; index++) {
		struct segment_entry *entry = &own_rank(shm)->table[index];
		uint64_t inode = get(&entry->inode);
		if (inode == place.inode && get(&entry->device) == place.device) {
			array.entry = index;
			break;
		}
		if (inode == 0 && empty == COL__ENTRIES_MAX)
			empty = index;
	}
	if (array.entry == COL__ENTRIES_MAX && empty < COL__ENTRIES_MAX)
		array.entry = table_add(shm, empty, &place);
	if (array.entry < COL__ENTRIES_MAX) {
		array.since = shm->entry_since[array.entry];
		array.offset = place.offset;
	}
	return array;
}

/* ---- the others' tables -------------------------------------------------------------------- */

static void mapping_close(struct col__mapping *mapping)
{
	if (mapping->base != NULL)
		col__heap_unmap(mapping->base, mapping->bytes);
	*mapping = (struct col__mapping){0};
}

/* Whether all that the table holds is mapped. */
static bool table_map(struct col_shm *shm, uint32_t rank)
{
	bool is_complete = true;
	for (uint32_t index = 0; index < COL__ENTRIES_MAX; index++) {
		struct segment_entry *entry = &shm->ranks[rank].table[index];
		struct col__mapping *mapping = &shm->mappings[rank][index];
		uint64_t inode = get(&entry->inode);
		uint64_t device = get(&entry->device);
		if (mapping->inode == inode && (inode == 0 || mapping->device == device))
			continue;
		mapping_close(mapping);
		if (inode == 0)
			continue;
		uint64_t bytes = get(&entry->bytes);
		mapping->base = col__heap_map(atomic_load(&entry->process), atomic_load(&entry->descriptor),
		                              inode, device, bytes);
		if (mapping->base == NULL) {
			is_complete = false;
			continue;
		}
		mapping->inode = inode;
		mapping->device = device;
		mapping->bytes = bytes;
	}
	return is_complete;
}

static void tables_map(struct col_shm *shm)
{
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		_Atomic uint32_t *word = &shm->ranks[rank].table_version;
		uint32_t version = atomic_load_explicit(word, memory_order_acquire);
		if (rank == shm->rank || version == shm->tried_version[rank] || version % 2 != 0)
			continue;
		bool is_complete = table_map(shm, rank);
		if (atomic_load_explicit(word, memory_order_relaxed) != version)
			continue; /* it changed meanwhile: the next operation looks again */
		shm->tried_version[rank] = version;
		if (is_complete)
			shm->mapped_version[rank] = version;
	}
}

/* ---- announcements ------------------------------------------------------------------------- */

static bool gives(const struct col_shm *shm, uint32_t rank)
{
	int collective = shm->flow.call.collective;
	return (collective != COLLECT_BROADCAST && collective != COLLECT_SCATTER)
	       || rank == shm->flow.call.root;
}

/* The others' targets that this collective writes to. */
static bool receives(const struct col_shm *shm, uint32_t rank)
{
	int collective = shm->flow.call.collective;
	return collective == COLLECT_ALL_REDUCE
	       || (collective == COLLECT_REDUCE && rank == shm->flow.call.root);
}

static uint32_t longest_blocks(const struct col_shm *shm, const size_t *at)
{
	uint64_t longest = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		uint64_t blocks = col_div_ceil(at[rank + 1] - at[rank], shm->chunk_bytes);
		longest = blocks > longest ? blocks : longest;
	}
	return (uint32_t)longest;
}

static uint64_t tagged_digest(const struct col_shm *shm)
{
	return shm->long_number << 32 | shm->flow.call.digest;
}

void col__announce(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	struct segment_announcement *mine = &own_rank(shm)->announcement;
	uint32_t ranks = shm->rank_count;
	shm->long_number++;
	table_scrub(shm);
	tables_map(shm);
	atomic_store_explicit(&mine->digest, tagged_digest(shm), memory_order_release);
	mine->source = (struct segment_array){.entry = COL__ENTRIES_MAX};
	mine->target = (struct segment_array){.entry = COL__ENTRIES_MAX};
	if (gives(shm, shm->rank) && !flow->is_scaled && !flow->is_ragged)
		mine->source = array_of(shm, flow->call.source, flow->source_at[ranks]);
	if (receives(shm, shm->rank) && mine->source.entry < COL__ENTRIES_MAX)
		mine->target = array_of(shm, flow->call.target, flow->target_at[ranks]);
	for (uint32_t rank = 0; rank < ranks; rank++)
		mine->mapped[rank] = shm->mapped_version[rank];
	bool is_private = gives(shm, shm->rank) && flow->source_at[ranks] > 0
	                  && mine->source.entry == COL__ENTRIES_MAX;
	flow->needs_announcements = !is_private;
	if (flow->is_ragged) {
		uint32_t from = longest_blocks(shm, flow->target_at);
		mine->piece_blocks = longest_blocks(shm, flow->source_at);
		mine->piece_blocks = from > mine->piece_blocks ? from : mine->piece_blocks;
		flow->needs_announcements = true;
	}
	col__post(shm, &mine->number, shm->long_number);
}

bool col__digests_agree(struct col_shm *shm)
{
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		uint64_t mine = tagged_digest(shm);
		uint64_t digest = atomic_load_explicit(&shm->ranks[rank].announcement.digest,
		                                       memory_order_acquire);
		/* A rank that has announced the next operation was satisfied with this one. */
		if (digest >> 32 == mine >> 32 && digest != mine) {
			shm->culprit = rank;
			return false;
		}
	}
	return true;
}

/* Whether all ranks can reach rank's array. */
static bool array_is_mapped(const struct col_shm *shm, uint32_t rank,
                            const struct segment_array *array)
{
	if (array->entry >= COL__ENTRIES_MAX)
		return false;
	for (uint32_t other = 0; other < shm->rank_count; other++) {
		if (other != rank && shm->ranks[other].announcement.mapped[rank] < array->since)
			return false;
	}
	return true;
}

/* Its address here; NULL when it does not lie where its owner says. */
static uint8_t *array_at(const struct col_shm *shm, uint32_t rank,
                         const struct segment_array *array, size_t bytes)
{
	const struct col__mapping *mapping = &shm->mappings[rank][array->entry];
	if (mapping->base == NULL || array->offset > mapping->bytes
	    || bytes > mapping->bytes - array->offset)
		return NULL;
	return mapping->base + array->offset;
}

static size_t given_bytes(const struct col_shm *shm, uint32_t rank)
{
	const struct col__flow *flow = &shm->flow;
	if (flow->call.collective == COLLECT_ALL_GATHER || flow->call.collective == COLLECT_GATHER)
		return flow->target_at[rank + 1] - flow->target_at[rank];
	return flow->source_at[shm->rank_count];
}

static bool sources_find(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		if (gives(shm, rank) && given_bytes(shm, rank) > 0
		    && !array_is_mapped(shm, rank, &shm->ranks[rank].announcement.source))
			return false;
	}
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		size_t bytes = given_bytes(shm, rank);
		if (!gives(shm, rank) || bytes == 0)
			continue;
		flow->sources[rank] = flow->call.source;
		if (rank != shm->rank)
			flow->sources[rank] =
				array_at(shm, rank, &shm->ranks[rank].announcement.source, bytes);
		if (flow->sources[rank] == NULL)
			flow->is_broken = true;
	}
	return true;
}

static bool is_in_place(const struct segment_announcement *announcement)
{
	return announcement->source.entry == announcement->target.entry
	       && announcement->source.offset == announcement->target.offset;
}

static bool targets_find(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		const struct segment_announcement *announcement = &shm->ranks[rank].announcement;
		if (receives(shm, rank) && (!array_is_mapped(shm, rank, &announcement->target)
		                            || is_in_place(announcement)))
			return false;
	}
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		if (!receives(shm, rank))
			continue;
		flow->targets[rank] = flow->call.target;
		if (rank != shm->rank)
			flow->targets[rank] = array_at(shm, rank, &shm->ranks[rank].announcement.target,
			                               flow->target_at[shm->rank_count]);
		if (flow->targets[rank] == NULL)
			flow->is_broken = true;
	}
	return true;
}

static bool all_have_announced(struct col_shm *shm)
{
	uint64_t missing = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		_Atomic uint64_t *number = &shm->ranks[rank].announcement.number;
		if (atomic_load_explicit(number, memory_order_acquire) < shm->long_number)
			missing |= 1ull << rank;
	}
	shm->missing = missing;
	return missing == 0;
}

int col__announcements_read(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	uint64_t blocks = 0;
	if (!all_have_announced(shm))
		return COL_SHM_STUCK;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		struct segment_announcement *announcement = &shm->ranks[rank].announcement;
		if (announcement->digest != tagged_digest(shm)) {
			shm->culprit = rank;
			return COLLECT_E_INVALID;
		}
		blocks = announcement->piece_blocks > blocks ? announcement->piece_blocks : blocks;
	}
	if (flow->is_ragged)
		flow->block_count = blocks > 0 ? blocks : 1;
	flow->reads_sources = !flow->is_ragged && !flow->is_scaled && sources_find(shm);
	bool is_all_reduce = flow->call.collective == COLLECT_ALL_REDUCE;
	bool is_reduce = flow->call.collective == COLLECT_REDUCE;
	flow->writes_targets = flow->reads_sources && (is_all_reduce || is_reduce)
	                       && targets_find(shm);
	if (flow->is_broken)
		return COLLECT_E_SYSTEM;
	if (flow->reads_sources && (flow->writes_targets || !(is_all_reduce || is_reduce)))
		flow->path = COL__PATH_DIRECT;
	return COL_SHM_MOVED;
}

/* ---- the work ------------------------------------------------------------------------------ */

int col__direct_begin(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	size_t target_bytes = flow->target_at[shm->rank_count];
	flow->is_streaming = target_bytes >= STREAMING_BYTES;
	flow->direct_at = 0;
	flow->direct_piece = 0;
	shm->has_lent_target = flow->writes_targets && receives(shm, shm->rank);
	return col__target_hides_source(shm) && !flow->writes_targets
	               ? col__area_take(flow, target_bytes) : COLLECT_OK;
}

static void part_reduce(struct col_shm *shm, size_t at, size_t bytes)
{
	struct col__flow *flow = &shm->flow;
	const void *sources[COL_SHM_RANKS_MAX];
	col_reduce_many_fn *reduce =
		shm->kernels->reduce_many[flow->call.dtype][flow->call.reduce_op];
	size_t count = bytes / flow->element_bytes;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++)
		sources[rank] = flow->sources[rank] + at;
	if (flow->call.collective != COLLECT_ALL_REDUCE) {
		uint8_t *target = flow->writes_targets
		                          ? flow->targets[flow->call.root] + at
		                          : flow->target + (at - flow->source_at[shm->rank]);
		reduce(target, sources, shm->rank_count, count, flow->divisor, flow->is_streaming);
		return;
	}
	/* Reduced into the first-level cache, and written from there. */
	_Alignas(64) uint8_t result[PART_BYTES];
	reduce(result, sources, shm->rank_count, count, flow->divisor, false);
	for (uint32_t step = 0; step < shm->rank_count; step++) {
		uint32_t rank = (shm->rank + step) % shm->rank_count;
		shm->kernels->copy(flow->targets[rank] + at, result, bytes, flow->is_streaming);
	}
}

/* A slice of everybody's source; true when it is through. */
static bool slice_advance(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	size_t length = flow->source_at[shm->rank + 1] - flow->source_at[shm->rank];
	size_t bytes = (size_t)col_min_u64(length - flow->direct_at, PART_BYTES);
	if (bytes > 0)
		part_reduce(shm, flow->source_at[shm->rank] + flow->direct_at, bytes);
	flow->direct_at += bytes;
	return flow->direct_at == length;
}

/* Where what this rank gets of `from` begins in that rank's source, and in the target. */
static const uint8_t *piece_of(const struct col_shm *shm, uint32_t from, size_t *at_out,
                               size_t *bytes_out)
{
	const struct col__flow *flow = &shm->flow;
	bool has_fetches = flow->has_fetches; /* else the source is cut by who gets it */
	uint32_t piece = flow->call.collective == COLLECT_SCATTER ? shm->rank : from;
	*at_out = flow->target_at[piece];
	*bytes_out = flow->target_at[piece + 1] - *at_out;
	if (!gives(shm, from) || !col__target_is_mine(shm))
		*bytes_out = 0;
	if (*bytes_out == 0)
		return NULL;
	return flow->sources[from] + (has_fetches ? 0 : flow->source_at[shm->rank]);
}

/* A part of a piece; true when all pieces are through. */
static bool pieces_advance(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (flow->direct_piece == shm->rank_count)
		return true;
	size_t at;
	size_t length;
	uint32_t from = (shm->rank + flow->direct_piece) % shm->rank_count;
	const uint8_t *source = piece_of(shm, from, &at, &length);
	size_t bytes = (size_t)col_min_u64(length - flow->direct_at, 4 * PART_BYTES);
	if (bytes > 0 && source != flow->target + at)
		shm->kernels->copy(flow->target + at + flow->direct_at, source + flow->direct_at, bytes,
		                   flow->is_streaming);
	flow->direct_at += bytes;
	if (flow->direct_at == length) {
		flow->direct_at = 0;
		flow->direct_piece++;
	}
	return flow->direct_piece == shm->rank_count;
}

bool col__direct_is_committed(struct col_shm *shm)
{
	uint64_t missing = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		_Atomic uint64_t *finished = &shm->ranks[rank].finished.value;
		if (atomic_load_explicit(finished, memory_order_acquire) < shm->long_number)
			missing |= 1ull << rank;
	}
	shm->missing = missing;
	return missing == 0;
}

void col__direct_complete(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (flow->area_bytes > 0)
		shm->kernels->copy(flow->call.target, flow->area, flow->area_bytes, flow->is_streaming);
}

int col__direct_advance(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	bool is_slice = flow->middle == COL__MIDDLE_REDUCE;
	int progress = COL_SHM_STUCK;
	for (size_t parts = 0; !flow->is_finished; parts++) {
		if (col__is_aborted(shm))
			return COLLECT_E_ABORTED;
		if (parts * PART_BYTES >= ADVANCE_BYTES)
			return COL_SHM_MOVED;
		progress = COL_SHM_MOVED;
		flow->is_finished = is_slice ? slice_advance(shm) : pieces_advance(shm);
		if (flow->is_finished)
			col__post(shm, &own_rank(shm)->finished.value, shm->long_number);
	}
	if (!col__direct_is_committed(shm))
		return col__is_aborted(shm) ? COLLECT_E_ABORTED : progress;
	if (col__is_aborted(shm))
		return COLLECT_E_ABORTED;
	col__direct_complete(shm);
	return COL_SHM_DONE;
}
