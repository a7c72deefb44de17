/* 256-bit vectors. Compiled with AVX2 allowed; reached only through the table. */
#include <immintrin.h>

#include "base/assert.h"
#include "kernels/kernels.h"
#include "kernels/reduce_vector.h"

/* One line per type: DTYPE, name, type, vector. int64 is divided by the scalar kernel: there is no
 * vector instruction for it. */
#define TYPES(X) \
	X(INT32, int32, int32_t, __m256i) \
	X(INT64, int64, int64_t, __m256i) \
	X(FLOAT32, float32, float, __m256) \
	X(FLOAT64, float64, double, __m256d)
#define DIVIDED_TYPES(X) \
	X(INT32, int32, int32_t, __m256i) \
	X(FLOAT32, float32, float, __m256) \
	X(FLOAT64, float64, double, __m256d)

/* ---- memory -------------------------------------------------------------------------------- */

/* The high bit of each lane below n. */
static inline __m256i mask_of_4_bytes(size_t n)
{
	const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
}

static inline __m256i mask_of_8_bytes(size_t n)
{
	const __m256i lanes = _mm256_setr_epi64x(0, 1, 2, 3);
	return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), lanes);
}

static inline __m256i load_integers(const void *source)
{
	return _mm256_loadu_si256((const __m256i *)source);
}

static inline void store_integers(void *target, __m256i vector)
{
	_mm256_storeu_si256((__m256i *)target, vector);
}

#define load_int32 load_integers
#define load_int64 load_integers
#define load_float32 _mm256_loadu_ps
#define load_float64 _mm256_loadu_pd
#define store_int32 store_integers
#define store_int64 store_integers
#define store_float32 _mm256_storeu_ps
#define store_float64 _mm256_storeu_pd

#define load_part_int32(source, n) _mm256_maskload_epi32(source, mask_of_4_bytes(n))
#define load_part_int64(source, n) \
	_mm256_maskload_epi64((const long long *)(source), mask_of_8_bytes(n))
#define load_part_float32(source, n) _mm256_maskload_ps(source, mask_of_4_bytes(n))
#define load_part_float64(source, n) _mm256_maskload_pd(source, mask_of_8_bytes(n))
#define store_part_int32(target, n, v) _mm256_maskstore_epi32(target, mask_of_4_bytes(n), v)
#define store_part_int64(target, n, v) \
	_mm256_maskstore_epi64((long long *)(target), mask_of_8_bytes(n), v)
#define store_part_float32(target, n, v) _mm256_maskstore_ps(target, mask_of_4_bytes(n), v)
#define store_part_float64(target, n, v) _mm256_maskstore_pd(target, mask_of_8_bytes(n), v)

/* ---- arithmetic ---------------------------------------------------------------------------- */

#define sum_of_int32 _mm256_add_epi32
#define sum_of_int64 _mm256_add_epi64
#define sum_of_float32 _mm256_add_ps
#define sum_of_float64 _mm256_add_pd

#define min_of_int32 _mm256_min_epi32
#define max_of_int32 _mm256_max_epi32

static inline __m256i min_of_int64(__m256i a, __m256i b)
{
	return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
}

static inline __m256i max_of_int64(__m256i a, __m256i b)
{
	return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b));
}

/* The instructions give b on a tie and when either is NaN; what is left is a NaN in a. */
#define MIN_OR_MAX_OF_REALS(op, name, vector, suffix) \
	static inline vector op##_of_##name(vector a, vector b) \
	{ \
		vector is_nan = _mm256_cmp_##suffix(a, a, _CMP_UNORD_Q); \
		return _mm256_blendv_##suffix(_mm256_##op##_##suffix(a, b), a, is_nan); \
	}
MIN_OR_MAX_OF_REALS(min, float32, __m256, ps)
MIN_OR_MAX_OF_REALS(max, float32, __m256, ps)
MIN_OR_MAX_OF_REALS(min, float64, __m256d, pd)
MIN_OR_MAX_OF_REALS(max, float64, __m256d, pd)

#define scale_float32(divisor) _mm256_set1_ps((float)(divisor))
#define scale_float64(divisor) _mm256_set1_pd((double)(divisor))
#define quotient_float32 _mm256_div_ps
#define quotient_float64 _mm256_div_pd

/*
 * Four quotients truncated, through float64. Moving the dividend half a unit away from zero keeps
 * the exact quotient at least 0.5/divisor away from the next integers on either side, and the
 * rounding of two operations moves it by less than 2^31/divisor * 2^-51.
 */
static inline __m128i quotient_of_4(__m128i dividend, __m256d reciprocal)
{
	__m256d exact = _mm256_cvtepi32_pd(dividend);
	__m256d sign = _mm256_and_pd(exact, _mm256_set1_pd(-0.0));
	__m256d moved = _mm256_add_pd(exact, _mm256_or_pd(sign, _mm256_set1_pd(0.5)));
	return _mm256_cvttpd_epi32(_mm256_mul_pd(moved, reciprocal));
}

#define scale_int32(divisor) _mm256_set1_pd(1.0 / (double)(divisor))
static inline __m256i quotient_int32(__m256i dividend, __m256d reciprocal)
{
	__m128i low = quotient_of_4(_mm256_castsi256_si128(dividend), reciprocal);
	__m128i high = quotient_of_4(_mm256_extracti128_si256(dividend, 1), reciprocal);
	return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* ---- kernels ------------------------------------------------------------------------------- */

TYPES(COL_VECTOR_REDUCES)
DIVIDED_TYPES(COL_VECTOR_DIVIDES)

void col_kernels_fill_avx2(struct col_kernels *table)
{
	TYPES(COL_VECTOR_FILL_REDUCES)
	DIVIDED_TYPES(COL_VECTOR_FILL_DIVIDES)
}
