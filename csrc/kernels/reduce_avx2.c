/* 256-bit vectors. Compiled with AVX2 and F16C allowed; reached only through the table. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

typedef __m256i vector;
#define VECTOR_BYTES 32

/* ---- memory -------------------------------------------------------------------------------- */

#define stream_end() _mm_sfence()
#define fetch(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)

static inline vector load_plain(const void *source)
{
	return _mm256_loadu_si256(source);
}

static inline void store_plain(void *target, vector v)
{
	_mm256_storeu_si256(target, v);
}

static inline void stream_plain(void *target, vector v)
{
	_mm256_stream_si256(target, v);
}

/* The high bit of each 4 bytes below n. */
static inline __m256i mask_of(size_t bytes)
{
	const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(bytes / 4)), lanes);
}

/* There are masks for 4 bytes at least. */
static inline vector load_part_plain(const void *source, size_t bytes)
{
	if (bytes % 4 == 0)
		return _mm256_maskload_epi32(source, mask_of(bytes));
	uint8_t whole[VECTOR_BYTES] = {0};
	memcpy(whole, source, bytes);
	return load_plain(whole);
}

static inline void store_part_plain(void *target, size_t bytes, vector v)
{
	if (bytes % 4 == 0) {
		_mm256_maskstore_epi32(target, mask_of(bytes), v);
		return;
	}
	uint8_t whole[VECTOR_BYTES];
	store_plain(whole, v);
	memcpy(target, whole, bytes);
}

static inline vector widen_float16(__m128i halves)
{
	return (vector)_mm256_cvtph_ps(halves);
}

static inline __m128i narrow_of_float16(vector v)
{
	return _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}

static inline vector widen_bfloat16(__m128i halves)
{
	return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
}

static inline __m128i narrow_of_bfloat16(vector v)
{
	__m256i top = _mm256_srli_epi32(v, 16);
	__m256i is_odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
	__m256i moved = _mm256_add_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(0x7fff)), is_odd);
	__m256i is_nan = (__m256i)_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q);
	__m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
	__m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(moved, 16), quiet, is_nan);
	return _mm_packus_epi32(_mm256_castsi256_si128(rounded),
	                        _mm256_extracti128_si256(rounded, 1));
}

#define DEFINE_HALF_MEMORY(name) \
	static inline vector load_##name(const void *source) \
	{ \
		return widen_##name(_mm_loadu_si128(source)); \
	} \
	static inline void store_##name(void *target, vector v) \
	{ \
		_mm_storeu_si128(target, narrow_of_##name(v)); \
	} \
	static inline void stream_##name(void *target, vector v) \
	{ \
		_mm_stream_si128(target, narrow_of_##name(v)); \
	} \
	static inline vector load_part_##name(const void *source, size_t bytes) \
	{ \
		uint8_t whole[VECTOR_BYTES / 2] = {0}; \
		memcpy(whole, source, bytes); \
		return load_##name(whole); \
	} \
	static inline void store_part_##name(void *target, size_t bytes, vector v) \
	{ \
		uint8_t whole[VECTOR_BYTES / 2]; \
		store_##name(whole, v); \
		memcpy(target, whole, bytes); \
	}
DEFINE_HALF_MEMORY(float16)
DEFINE_HALF_MEMORY(bfloat16)

/* ---- integers ------------------------------------------------------------------------------ */

#define sum_of_8 _mm256_add_epi8
#define sum_of_16 _mm256_add_epi16
#define sum_of_32 _mm256_add_epi32
#define sum_of_64 _mm256_add_epi64

/* The even and the odd bytes as 16-bit numbers, whose upper halves do not matter. */
static inline vector prod_of_8(vector a, vector b)
{
	__m256i even = _mm256_mullo_epi16(a, b);
	__m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
	return _mm256_blendv_epi8(even, _mm256_slli_epi16(odd, 8), _mm256_set1_epi16(-256));
}
#define prod_of_16 _mm256_mullo_epi16
#define prod_of_32 _mm256_mullo_epi32

/* By halves: low * low + ((low * high + high * low) << 32). */
static inline vector prod_of_64(vector a, vector b)
{
	__m256i crossed = _mm256_mullo_epi32(a, _mm256_shuffle_epi32(b, 0xb1));
	__m256i high = _mm256_add_epi32(_mm256_slli_epi64(crossed, 32), crossed);
	high = _mm256_blend_epi32(_mm256_setzero_si256(), high, 0xaa);
	return _mm256_add_epi64(_mm256_mul_epu32(a, b), high);
}

#define min_of_int8 _mm256_min_epi8
#define min_of_int16 _mm256_min_epi16
#define min_of_int32 _mm256_min_epi32
#define min_of_uint8 _mm256_min_epu8
#define min_of_uint16 _mm256_min_epu16
#define min_of_uint32 _mm256_min_epu32
#define max_of_int8 _mm256_max_epi8
#define max_of_int16 _mm256_max_epi16
#define max_of_int32 _mm256_max_epi32
#define max_of_uint8 _mm256_max_epu8
#define max_of_uint16 _mm256_max_epu16
#define max_of_uint32 _mm256_max_epu32

static inline vector min_of_int64(vector a, vector b)
{
	return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
}

static inline vector max_of_int64(vector a, vector b)
{
	return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b));
}

/* Unsigned numbers compare as signed ones do when the highest bit is flipped. */
static inline vector is_above(vector a, vector b)
{
	const vector flip = _mm256_set1_epi64x(INT64_MIN);
	return _mm256_cmpgt_epi64(_mm256_xor_si256(a, flip), _mm256_xor_si256(b, flip));
}

static inline vector min_of_uint64(vector a, vector b)
{
	return _mm256_blendv_epi8(a, b, is_above(a, b));
}

static inline vector max_of_uint64(vector a, vector b)
{
	return _mm256_blendv_epi8(b, a, is_above(a, b));
}

#define and_of_plain _mm256_and_si256
#define or_of_plain _mm256_or_si256
#define xor_of_plain _mm256_xor_si256

static inline vector zero_or_one(vector v)
{
	return _mm256_min_epu8(v, _mm256_set1_epi8(1));
}

static inline vector and_of_boolean(vector a, vector b)
{
	return zero_or_one(_mm256_min_epu8(a, b));
}

static inline vector or_of_boolean(vector a, vector b)
{
	return zero_or_one(_mm256_or_si256(a, b));
}

static inline vector xor_of_boolean(vector a, vector b)
{
	return _mm256_xor_si256(zero_or_one(a), zero_or_one(b));
}

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

#define divisor_int32(divisor) ((vector)_mm256_set1_pd(1.0 / (double)(divisor)))
static inline vector quotient_int32(vector dividend, vector reciprocal)
{
	__m128i low = quotient_of_4(_mm256_castsi256_si128(dividend), (__m256d)reciprocal);
	__m128i high = quotient_of_4(_mm256_extracti128_si256(dividend, 1), (__m256d)reciprocal);
	return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* ---- reals --------------------------------------------------------------------------------- */

/* Of two NaNs the instruction keeps the first, but the compiler exchanges what it adds and
 * multiplies; not so here. */
#define DEFINE_ORDERED(function, instruction, reals) \
	static inline vector function(vector a, vector b) \
	{ \
		reals result; \
		__asm__(instruction " %2, %1, %0" : "=x"(result) : "x"((reals)a), "x"((reals)b)); \
		return (vector)result; \
	}
DEFINE_ORDERED(sum_of_float32, "vaddps", __m256)
DEFINE_ORDERED(sum_of_float64, "vaddpd", __m256d)
DEFINE_ORDERED(prod_of_float32, "vmulps", __m256)
DEFINE_ORDERED(prod_of_float64, "vmulpd", __m256d)

/* The instructions give b on a tie and when either is NaN; what is left is a NaN in a. */
#define DEFINE_MIN_OR_MAX(op, name, reals, suffix) \
	static inline vector op##_of_##name(vector a, vector b) \
	{ \
		reals is_nan = _mm256_cmp_##suffix((reals)a, (reals)a, _CMP_UNORD_Q); \
		reals extreme = _mm256_##op##_##suffix((reals)a, (reals)b); \
		return (vector)_mm256_blendv_##suffix(extreme, (reals)a, is_nan); \
	}
DEFINE_MIN_OR_MAX(min, float32, __m256, ps)
DEFINE_MIN_OR_MAX(max, float32, __m256, ps)
DEFINE_MIN_OR_MAX(min, float64, __m256d, pd)
DEFINE_MIN_OR_MAX(max, float64, __m256d, pd)

/* 16-bit floats in their own width: the magnitude with its sign compares as a number. */
static inline vector magnitude_of(vector v)
{
	return _mm256_and_si256(v, _mm256_set1_epi16(0x7fff));
}

static inline vector key_of(vector v)
{
	vector sign = _mm256_srai_epi16(v, 15);
	return _mm256_sub_epi16(_mm256_xor_si256(magnitude_of(v), sign), sign);
}

static inline vector half_of(vector a, vector b, vector is_first, short infinity)
{
	const vector largest = _mm256_set1_epi16(infinity);
	vector is_nan_a = _mm256_cmpgt_epi16(magnitude_of(a), largest);
	vector is_nan_b = _mm256_cmpgt_epi16(magnitude_of(b), largest);
	vector takes_a = _mm256_or_si256(is_nan_a, _mm256_andnot_si256(is_nan_b, is_first));
	return _mm256_blendv_epi8(b, a, takes_a);
}

#define DEFINE_HALF_MIN_AND_MAX(name, infinity) \
	static inline vector min_of_##name(vector a, vector b) \
	{ \
		return half_of(a, b, _mm256_cmpgt_epi16(key_of(b), key_of(a)), infinity); \
	} \
	static inline vector max_of_##name(vector a, vector b) \
	{ \
		return half_of(a, b, _mm256_cmpgt_epi16(key_of(a), key_of(b)), infinity); \
	}
DEFINE_HALF_MIN_AND_MAX(float16, 0x7c00)
DEFINE_HALF_MIN_AND_MAX(bfloat16, 0x7f80)

#define divisor_float32(divisor) ((vector)_mm256_set1_ps((float)(divisor)))
#define divisor_float64(divisor) ((vector)_mm256_set1_pd((double)(divisor)))
#define factor_float32(factor) ((vector)_mm256_set1_ps((float)(factor)))
#define factor_float64(factor) ((vector)_mm256_set1_pd(factor))
#define quotient_float32(v, scale) ((vector)_mm256_div_ps((__m256)(v), (__m256)(scale)))
#define quotient_float64(v, scale) ((vector)_mm256_div_pd((__m256d)(v), (__m256d)(scale)))

#include "kernels/reduce_vector.h"

void col_kernels_fill_avx2(struct col_kernels *table)
{
	table_fill(table);
}
