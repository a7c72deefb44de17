/* 512-bit vectors. Compiled with AVX-512 F, BW, VL, DQ allowed; reached only through the table. */
#include <immintrin.h>

#include "base/assert.h"
#include "kernels/kernels.h"
#include "kernels/reduce_vector.h"

/* One line per type: DTYPE, name, type, vector. int64 is divided by the scalar kernel: there is no
 * vector instruction for it. */
#define TYPES(X) \
	X(INT32, int32, int32_t, __m512i) \
	X(INT64, int64, int64_t, __m512i) \
	X(FLOAT32, float32, float, __m512) \
	X(FLOAT64, float64, double, __m512d)
#define DIVIDED_TYPES(X) \
	X(INT32, int32, int32_t, __m512i) \
	X(FLOAT32, float32, float, __m512) \
	X(FLOAT64, float64, double, __m512d)

/* ---- memory -------------------------------------------------------------------------------- */

/* A bit for each lane below n; n is less than the lanes of a vector. */
#define MASK_16(n) ((__mmask16)((1u << (n)) - 1))
#define MASK_8(n) ((__mmask8)((1u << (n)) - 1))

#define load_int32 _mm512_loadu_si512
#define load_int64 _mm512_loadu_si512
#define load_float32 _mm512_loadu_ps
#define load_float64 _mm512_loadu_pd
#define store_int32 _mm512_storeu_si512
#define store_int64 _mm512_storeu_si512
#define store_float32 _mm512_storeu_ps
#define store_float64 _mm512_storeu_pd

#define load_part_int32(source, n) _mm512_maskz_loadu_epi32(MASK_16(n), source)
#define load_part_int64(source, n) _mm512_maskz_loadu_epi64(MASK_8(n), source)
#define load_part_float32(source, n) _mm512_maskz_loadu_ps(MASK_16(n), source)
#define load_part_float64(source, n) _mm512_maskz_loadu_pd(MASK_8(n), source)
#define store_part_int32(target, n, v) _mm512_mask_storeu_epi32(target, MASK_16(n), v)
#define store_part_int64(target, n, v) _mm512_mask_storeu_epi64(target, MASK_8(n), v)
#define store_part_float32(target, n, v) _mm512_mask_storeu_ps(target, MASK_16(n), v)
#define store_part_float64(target, n, v) _mm512_mask_storeu_pd(target, MASK_8(n), v)

/* ---- arithmetic ---------------------------------------------------------------------------- */

#define sum_of_int32 _mm512_add_epi32
#define sum_of_int64 _mm512_add_epi64
#define sum_of_float32 _mm512_add_ps
#define sum_of_float64 _mm512_add_pd

#define min_of_int32 _mm512_min_epi32
#define min_of_int64 _mm512_min_epi64
#define max_of_int32 _mm512_max_epi32
#define max_of_int64 _mm512_max_epi64

/* The instructions give b on a tie and when either is NaN. Lanes where a is NaN are left out of
 * them, and keep a. */
#define MIN_OR_MAX_OF_REALS(op, name, vector, mask, suffix) \
	static inline vector op##_of_##name(vector a, vector b) \
	{ \
		mask is_number = _mm512_cmp_##suffix##_mask(a, a, _CMP_ORD_Q); \
		return _mm512_mask_##op##_##suffix(a, is_number, a, b); \
	}
MIN_OR_MAX_OF_REALS(min, float32, __m512, __mmask16, ps)
MIN_OR_MAX_OF_REALS(max, float32, __m512, __mmask16, ps)
MIN_OR_MAX_OF_REALS(min, float64, __m512d, __mmask8, pd)
MIN_OR_MAX_OF_REALS(max, float64, __m512d, __mmask8, pd)

#define scale_float32(divisor) _mm512_set1_ps((float)(divisor))
#define scale_float64(divisor) _mm512_set1_pd((double)(divisor))
#define quotient_float32 _mm512_div_ps
#define quotient_float64 _mm512_div_pd

/* Eight quotients truncated, through float64; why this is exact is said in reduce_avx2.c. */
static inline __m256i quotient_of_8(__m256i dividend, __m512d reciprocal)
{
	__m512d exact = _mm512_cvtepi32_pd(dividend);
	__m512d sign = _mm512_and_pd(exact, _mm512_set1_pd(-0.0));
	__m512d moved = _mm512_add_pd(exact, _mm512_or_pd(sign, _mm512_set1_pd(0.5)));
	return _mm512_cvttpd_epi32(_mm512_mul_pd(moved, reciprocal));
}

#define scale_int32(divisor) _mm512_set1_pd(1.0 / (double)(divisor))
static inline __m512i quotient_int32(__m512i dividend, __m512d reciprocal)
{
	__m256i low = quotient_of_8(_mm512_castsi512_si256(dividend), reciprocal);
	__m256i high = quotient_of_8(_mm512_extracti64x4_epi64(dividend, 1), reciprocal);
	return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* ---- kernels ------------------------------------------------------------------------------- */

TYPES(COL_VECTOR_REDUCES)
DIVIDED_TYPES(COL_VECTOR_DIVIDES)

void col_kernels_fill_avx512(struct col_kernels *table)
{
	TYPES(COL_VECTOR_FILL_REDUCES)
	DIVIDED_TYPES(COL_VECTOR_FILL_DIVIDES)
}
