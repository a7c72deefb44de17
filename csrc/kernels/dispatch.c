/*
 * Chooses among the variants. The only reader of cpuid.
 *
 * There is one table per instruction set, filled once: each begins as the scalar one and is
 * overwritten by every set up to its own, so that a variant may leave out what it cannot do better.
 * The sets of one architecture are numbered from narrow to wide; a build has those of one.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "kernels/kernels.h"

#define ISA_COUNT (COLLECT_ISA_NEON + 1)

static pthread_once_t tables_once = PTHREAD_ONCE_INIT;
static struct col_kernels tables[ISA_COUNT];
static int isa_widest;
static bool has_crc32c;
static _Atomic(const struct col_kernels *) selected; /* NULL until the tables are filled */

/* What this build contains, this processor executes, and this system saves across switches: the
 * compiler's built-in asks all but the first. */
static bool isa_is_available(int isa)
{
	switch (isa) {
	case COLLECT_ISA_SCALAR:
		return true;
#ifdef COL_HAVE_AVX2
	case COLLECT_ISA_AVX2:
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
#endif
#ifdef COL_HAVE_AVX512
	case COLLECT_ISA_AVX512:
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
		       && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
#ifdef COL_HAVE_NEON
	case COLLECT_ISA_NEON:
		return true; /* part of the architecture */
#endif
	default:
		return false;
	}
}

static void table_fill(struct col_kernels *table, int isa)
{
	col_kernels_fill_scalar(table);
#ifdef COL_HAVE_AVX2
	if (isa >= COLLECT_ISA_AVX2)
		col_kernels_fill_avx2(table);
#endif
#ifdef COL_HAVE_AVX512
	if (isa >= COLLECT_ISA_AVX512)
		col_kernels_fill_avx512(table);
#endif
#ifdef COL_HAVE_NEON
	if (isa >= COLLECT_ISA_NEON)
		col_kernels_fill_neon(table);
#endif
	table->isa = isa;
}

static void tables_init(void)
{
#ifdef __x86_64__
	__builtin_cpu_init();
	has_crc32c = __builtin_cpu_supports("sse4.2");
#endif
	for (int isa = COLLECT_ISA_SCALAR; isa < ISA_COUNT; isa++) {
		if (isa_is_available(isa)) {
			table_fill(&tables[isa], isa);
			isa_widest = isa;
		}
	}
	atomic_store_explicit(&selected, &tables[isa_widest], memory_order_release);
}

static void tables_ensure(void)
{
	int result = pthread_once(&tables_once, tables_init);
	COL_ASSERT(result == 0);
}

const struct col_kernels *col_kernels(void)
{
	const struct col_kernels *table = atomic_load_explicit(&selected, memory_order_acquire);
	if (table != NULL)
		return table;
	tables_ensure();
	return atomic_load_explicit(&selected, memory_order_acquire);
}

int col_kernels_select(int isa)
{
	tables_ensure();
	if (isa < COLLECT_ISA_SCALAR)
		isa = COLLECT_ISA_SCALAR;
	if (isa > isa_widest)
		isa = isa_widest;
	while (!isa_is_available(isa))
		isa--;
	atomic_store_explicit(&selected, &tables[isa], memory_order_release);
	return isa;
}

bool col_cpu_has_crc32c(void)
{
	tables_ensure();
	return has_crc32c;
}
