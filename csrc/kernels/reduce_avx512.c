/* 512-bit vectors. Compiled with AVX-512 F, BW, VL, DQ allowed; reached only through the table. */
#include <immintrin.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef __m512i vector;
#define VECTOR_BYTES 64

/* ---- memory -------------------------------------------------------------------------------- */

/* A bit for each lane below n; n is less than the lanes of a vector. */
#define MASK_64(n) ((__mmask64)(((uint64_t)1 << (n)) - 1))
#define MASK_16(n) ((__mmask16)((1u << (n)) - 1))

#define load_plain(source) _mm512_loadu_si512(source)
#define store_plain(target, v) _mm512_storeu_si512(target, v)
#define stream_plain(target, v) _mm512_stream_si512((__m512i *)(void *)(target), v)
#define load_part_plain(source, n) _mm512_maskz_loadu_epi8(MASK_64(n), source)
#define store_part_plain(target, n, v) _mm512_mask_storeu_epi8(target, MASK_64(n), v)
#define stream_end() _mm_sfence()
#define fetch(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)

static inline vector widen_float16(__m256i halves)
{
	return (vector)_mm512_cvtph_ps(halves);
}

static inline __m256i narrow_of_float16(vector v)
{
	return _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
}

static inline vector widen_bfloat16(__m256i halves)
{
	return _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
}

/* In integers: the instruction takes subnormals for zero. */
static inline __m256i narrow_of_bfloat16(vector v)
{
	__m512i top = _mm512_srli_epi32(v, 16);
	__m512i is_odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
	__m512i moved = _mm512_add_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(0x7fff)), is_odd);
	__mmask16 is_nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
	__m512i rounded = _mm512_srli_epi32(moved, 16);
	rounded = _mm512_mask_or_epi32(rounded, is_nan, top, _mm512_set1_epi32(0x40));
	return _mm512_cvtepi32_epi16(rounded);
}

#define DEFINE_HALF_MEMORY(name) \
	static inline vector load_##name(const void *source) \
	{ \
		return widen_##name(_mm256_loadu_si256(source)); \
	} \
	static inline void store_##name(void *target, vector v) \
	{ \
		_mm256_storeu_si256(target, narrow_of_##name(v)); \
	} \
	static inline void stream_##name(void *target, vector v) \
	{ \
		_mm256_stream_si256(target, narrow_of_##name(v)); \
	} \
	static inline vector load_part_##name(const void *source, size_t bytes) \
	{ \
		return widen_##name(_mm256_maskz_loadu_epi16(MASK_16(bytes / 2), source)); \
	} \
	static inline void store_part_##name(void *target, size_t bytes, vector v) \
	{ \
		_mm256_mask_storeu_epi16(target, MASK_16(bytes / 2), narrow_of_##name(v)); \
	}
DEFINE_HALF_MEMORY(float16)
DEFINE_HALF_MEMORY(bfloat16)

/* ---- integers ------------------------------------------------------------------------------ */

#define sum_of_8 _mm512_add_epi8
#define sum_of_16 _mm512_add_epi16
#define sum_of_32 _mm512_add_epi32
#define sum_of_64 _mm512_add_epi64

/* The even and the odd bytes as 16-bit numbers, whose upper halves do not matter. */
static inline vector prod_of_8(vector a, vector b)
{
	__m512i even = _mm512_mullo_epi16(a, b);
	__m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
	return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, even, _mm512_slli_epi16(odd, 8));
}
#define prod_of_16 _mm512_mullo_epi16
#define prod_of_32 _mm512_mullo_epi32
#define prod_of_64 _mm512_mullo_epi64

#define min_of_int8 _mm512_min_epi8
#define min_of_int16 _mm512_min_epi16
#define min_of_int32 _mm512_min_epi32
#define min_of_int64 _mm512_min_epi64
#define min_of_uint8 _mm512_min_epu8
#define min_of_uint16 _mm512_min_epu16
#define min_of_uint32 _mm512_min_epu32
#define min_of_uint64 _mm512_min_epu64
#define max_of_int8 _mm512_max_epi8
#define max_of_int16 _mm512_max_epi16
#define max_of_int32 _mm512_max_epi32
#define max_of_int64 _mm512_max_epi64
#define max_of_uint8 _mm512_max_epu8
#define max_of_uint16 _mm512_max_epu16
#define max_of_uint32 _mm512_max_epu32
#define max_of_uint64 _mm512_max_epu64

#define and_of_plain _mm512_and_si512
#define or_of_plain _mm512_or_si512
#define xor_of_plain _mm512_xor_si512

static inline vector zero_or_one(vector v)
{
	return _mm512_min_epu8(v, _mm512_set1_epi8(1));
}

static inline vector and_of_boolean(vector a, vector b)
{
	return zero_or_one(_mm512_min_epu8(a, b));
}

static inline vector or_of_boolean(vector a, vector b)
{
	return zero_or_one(_mm512_or_si512(a, b));
}

static inline vector xor_of_boolean(vector a, vector b)
{
	return _mm512_xor_si512(zero_or_one(a), zero_or_one(b));
}

/* Eight quotients truncated, through float64; why this is exact is said in reduce_avx2.c. */
static inline __m256i quotient_of_8(__m256i dividend, __m512d reciprocal)
{
	__m512d exact = _mm512_cvtepi32_pd(dividend);
	__m512d sign = _mm512_and_pd(exact, _mm512_set1_pd(-0.0));
	__m512d moved = _mm512_add_pd(exact, _mm512_or_pd(sign, _mm512_set1_pd(0.5)));
	return _mm512_cvttpd_epi32(_mm512_mul_pd(moved, reciprocal));
}

#define divisor_int32(divisor) ((vector)_mm512_set1_pd(1.0 / (double)(divisor)))
static inline vector quotient_int32(vector dividend, vector reciprocal)
{
	__m256i low = quotient_of_8(_mm512_castsi512_si256(dividend), (__m512d)reciprocal);
	__m256i high = quotient_of_8(_mm512_extracti64x4_epi64(dividend, 1), (__m512d)reciprocal);
	return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* ---- reals --------------------------------------------------------------------------------- */

/* Of two NaNs the instruction keeps the first, but the compiler exchanges what it adds and
 * multiplies; not so here. */
#define DEFINE_ORDERED(function, instruction, reals) \
	static inline vector function(vector a, vector b) \
	{ \
		reals result; \
		__asm__(instruction " %2, %1, %0" : "=v"(result) : "v"((reals)a), "v"((reals)b)); \
		return (vector)result; \
	}
DEFINE_ORDERED(sum_of_float32, "vaddps", __m512)
DEFINE_ORDERED(sum_of_float64, "vaddpd", __m512d)
DEFINE_ORDERED(prod_of_float32, "vmulps", __m512)
DEFINE_ORDERED(prod_of_float64, "vmulpd", __m512d)

/* The instructions give b on a tie and when either is NaN. Lanes where a is NaN are left out of
 * them, and keep a. */
#define DEFINE_MIN_OR_MAX(op, name, reals, mask, suffix) \
	static inline vector op##_of_##name(vector a, vector b) \
	{ \
		mask is_number = _mm512_cmp_##suffix##_mask((reals)a, (reals)a, _CMP_ORD_Q); \
		return (vector)_mm512_mask_##op##_##suffix((reals)a, is_number, (reals)a, (reals)b); \
	}
DEFINE_MIN_OR_MAX(min, float32, __m512, __mmask16, ps)
DEFINE_MIN_OR_MAX(max, float32, __m512, __mmask16, ps)
DEFINE_MIN_OR_MAX(min, float64, __m512d, __mmask8, pd)
DEFINE_MIN_OR_MAX(max, float64, __m512d, __mmask8, pd)

/* 16-bit floats in their own width: the magnitude with its sign compares as a number. */
static inline vector magnitude_of(vector v)
{
	return _mm512_and_si512(v, _mm512_set1_epi16(0x7fff));
}

static inline vector key_of(vector v)
{
	vector magnitude = magnitude_of(v);
	return _mm512_mask_sub_epi16(magnitude, _mm512_movepi16_mask(v), _mm512_setzero_si512(),
	                             magnitude);
}

#define DEFINE_HALF_MIN_OR_MAX(op, name, infinity, compare) \
	static inline vector op##_of_##name(vector a, vector b) \
	{ \
		const vector largest = _mm512_set1_epi16(infinity); \
		__mmask32 is_nan = _mm512_cmpgt_epi16_mask(magnitude_of(a), largest); \
		__mmask32 is_number = _mm512_cmple_epi16_mask(magnitude_of(b), largest); \
		__mmask32 is_first = compare(is_number, key_of(a), key_of(b)); \
		return _mm512_mask_blend_epi16(is_nan | is_first, b, a); \
	}
DEFINE_HALF_MIN_OR_MAX(min, float16, 0x7c00, _mm512_mask_cmplt_epi16_mask)
DEFINE_HALF_MIN_OR_MAX(max, float16, 0x7c00, _mm512_mask_cmpgt_epi16_mask)
DEFINE_HALF_MIN_OR_MAX(min, bfloat16, 0x7f80, _mm512_mask_cmplt_epi16_mask)
DEFINE_HALF_MIN_OR_MAX(max, bfloat16, 0x7f80, _mm512_mask_cmpgt_epi16_mask)

#define divisor_float32(divisor) ((vector)_mm512_set1_ps((float)(divisor)))
#define divisor_float64(divisor) ((vector)_mm512_set1_pd((double)(divisor)))
#define factor_float32(factor) ((vector)_mm512_set1_ps((float)(factor)))
#define factor_float64(factor) ((vector)_mm512_set1_pd(factor))
#define quotient_float32(v, scale) ((vector)_mm512_div_ps((__m512)(v), (__m512)(scale)))
#define quotient_float64(v, scale) ((vector)_mm512_div_pd((__m512d)(v), (__m512d)(scale)))

#include "kernels/reduce_vector.h"

void col_kernels_fill_avx512(struct col_kernels *table)
{
	table_fill(table);
}
