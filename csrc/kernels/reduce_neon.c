/* 128-bit vectors of AArch64, where they are part of the architecture. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

typedef uint8x16_t vector;
#define VECTOR_BYTES 16

/* ---- memory -------------------------------------------------------------------------------- */

/* There is no store past the cache that the compiler offers, and nothing to order. */
#define stream_end() ((void)0)
#define fetch(address) __builtin_prefetch(address)

static inline vector load_plain(const void *source)
{
	return vld1q_u8(source);
}

static inline void store_plain(void *target, vector v)
{
	vst1q_u8(target, v);
}

static inline vector load_part_plain(const void *source, size_t bytes)
{
	uint8_t whole[VECTOR_BYTES] = {0};
	memcpy(whole, source, bytes);
	return load_plain(whole);
}

static inline void store_part_plain(void *target, size_t bytes, vector v)
{
	uint8_t whole[VECTOR_BYTES];
	store_plain(whole, v);
	memcpy(target, whole, bytes);
}
#define stream_plain store_plain

static inline vector widen_float16(uint16x4_t halves)
{
	return vreinterpretq_u8_f32(vcvt_f32_f16(vreinterpret_f16_u16(halves)));
}

static inline uint16x4_t narrow_of_float16(vector v)
{
	return vreinterpret_u16_f16(vcvt_f16_f32(vreinterpretq_f32_u8(v)));
}

static inline vector widen_bfloat16(uint16x4_t halves)
{
	return vreinterpretq_u8_u32(vshll_n_u16(halves, 16));
}

static inline uint16x4_t narrow_of_bfloat16(vector v)
{
	uint32x4_t bits = vreinterpretq_u32_u8(v);
	uint32x4_t top = vshrq_n_u32(bits, 16);
	uint32x4_t is_odd = vandq_u32(top, vdupq_n_u32(1));
	uint32x4_t moved = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), is_odd);
	float32x4_t value = vreinterpretq_f32_u8(v);
	uint32x4_t quiet = vorrq_u32(top, vdupq_n_u32(0x40));
	return vmovn_u32(vbslq_u32(vceqq_f32(value, value), vshrq_n_u32(moved, 16), quiet));
}

#define DEFINE_HALF_MEMORY(name) \
	static inline vector load_##name(const void *source) \
	{ \
		return widen_##name(vreinterpret_u16_u8(vld1_u8(source))); \
	} \
	static inline void store_##name(void *target, vector v) \
	{ \
		vst1_u8(target, vreinterpret_u8_u16(narrow_of_##name(v))); \
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
#define stream_float16 store_float16
#define stream_bfloat16 store_bfloat16

/* ---- integers ------------------------------------------------------------------------------ */

#define DEFINE_OPERATION(function, instruction, suffix) \
	static inline vector function(vector a, vector b) \
	{ \
		return vreinterpretq_u8_##suffix(instruction##_##suffix(vreinterpretq_##suffix##_u8(a), \
		                                                        vreinterpretq_##suffix##_u8(b))); \
	}
#define sum_of_8 vaddq_u8
#define prod_of_8 vmulq_u8
#define min_of_uint8 vminq_u8
#define max_of_uint8 vmaxq_u8
DEFINE_OPERATION(sum_of_16, vaddq, u16)
DEFINE_OPERATION(sum_of_32, vaddq, u32)
DEFINE_OPERATION(sum_of_64, vaddq, u64)
DEFINE_OPERATION(prod_of_16, vmulq, u16)
DEFINE_OPERATION(prod_of_32, vmulq, u32)
DEFINE_OPERATION(min_of_int8, vminq, s8)
DEFINE_OPERATION(min_of_int16, vminq, s16)
DEFINE_OPERATION(min_of_int32, vminq, s32)
DEFINE_OPERATION(min_of_uint16, vminq, u16)
DEFINE_OPERATION(min_of_uint32, vminq, u32)
DEFINE_OPERATION(max_of_int8, vmaxq, s8)
DEFINE_OPERATION(max_of_int16, vmaxq, s16)
DEFINE_OPERATION(max_of_int32, vmaxq, s32)
DEFINE_OPERATION(max_of_uint16, vmaxq, u16)
DEFINE_OPERATION(max_of_uint32, vmaxq, u32)

/* There is no product of 64-bit lanes. */
static inline vector prod_of_64(vector a, vector b)
{
	uint64x2_t x = vreinterpretq_u64_u8(a);
	uint64x2_t y = vreinterpretq_u64_u8(b);
	return vreinterpretq_u8_u64(vcombine_u64(
		vcreate_u64(vgetq_lane_u64(x, 0) * vgetq_lane_u64(y, 0)),
		vcreate_u64(vgetq_lane_u64(x, 1) * vgetq_lane_u64(y, 1))));
}

/* Where `is_first`, a. */
static inline vector choose_64(uint64x2_t is_first, vector a, vector b)
{
	return vbslq_u8(vreinterpretq_u8_u64(is_first), a, b);
}

#define DEFINE_LONG_EXTREMES(name, suffix) \
	static inline vector min_of_##name(vector a, vector b) \
	{ \
		return choose_64(vcltq_##suffix(vreinterpretq_##suffix##_u8(a), \
		                                vreinterpretq_##suffix##_u8(b)), a, b); \
	} \
	static inline vector max_of_##name(vector a, vector b) \
	{ \
		return choose_64(vcgtq_##suffix(vreinterpretq_##suffix##_u8(a), \
		                                vreinterpretq_##suffix##_u8(b)), a, b); \
	}
DEFINE_LONG_EXTREMES(int64, s64)
DEFINE_LONG_EXTREMES(uint64, u64)

#define and_of_plain vandq_u8
#define or_of_plain vorrq_u8
#define xor_of_plain veorq_u8

static inline vector zero_or_one(vector v)
{
	return vminq_u8(v, vdupq_n_u8(1));
}

static inline vector and_of_boolean(vector a, vector b)
{
	return zero_or_one(vminq_u8(a, b));
}

static inline vector or_of_boolean(vector a, vector b)
{
	return zero_or_one(vorrq_u8(a, b));
}

static inline vector xor_of_boolean(vector a, vector b)
{
	return veorq_u8(zero_or_one(a), zero_or_one(b));
}

/* By way of float64, which is exact: see element.h. */
#define divisor_int32(divisor) vreinterpretq_u8_f64(vdupq_n_f64((double)(divisor)))
static inline vector quotient_int32(vector v, vector scale)
{
	int32x4_t dividend = vreinterpretq_s32_u8(v);
	float64x2_t divisor = vreinterpretq_f64_u8(scale);
	float64x2_t low = vdivq_f64(vcvtq_f64_s64(vmovl_s32(vget_low_s32(dividend))), divisor);
	float64x2_t high = vdivq_f64(vcvtq_f64_s64(vmovl_s32(vget_high_s32(dividend))), divisor);
	return vreinterpretq_u8_s32(
		vcombine_s32(vmovn_s64(vcvtq_s64_f64(low)), vmovn_s64(vcvtq_s64_f64(high))));
}

/* ---- reals --------------------------------------------------------------------------------- */

/* The instructions prefer a signaling NaN to a quiet one, so that b must be kept out where a is
 * NaN; and what they do with NaNs in min and max is not what is wanted. */
#define DEFINE_REAL_OPERATIONS(name, reals, suffix, mask_suffix) \
	static inline vector instead_of_##name(vector a, vector b) \
	{ \
		reals x = vreinterpretq_##suffix##_u8(a); \
		return vbslq_u8(vreinterpretq_u8_##mask_suffix(vceqq_##suffix(x, x)), b, a); \
	} \
	static inline vector sum_of_##name(vector a, vector b) \
	{ \
		vector y = instead_of_##name(a, b); \
		return vreinterpretq_u8_##suffix(vaddq_##suffix(vreinterpretq_##suffix##_u8(a), \
		                                                vreinterpretq_##suffix##_u8(y))); \
	} \
	static inline vector prod_of_##name(vector a, vector b) \
	{ \
		vector y = instead_of_##name(a, b); \
		return vreinterpretq_u8_##suffix(vmulq_##suffix(vreinterpretq_##suffix##_u8(a), \
		                                                vreinterpretq_##suffix##_u8(y))); \
	} \
	static inline vector min_of_##name(vector a, vector b) \
	{ \
		vector is_first = vreinterpretq_u8_##mask_suffix( \
			vcltq_##suffix(vreinterpretq_##suffix##_u8(a), vreinterpretq_##suffix##_u8(b))); \
		return instead_of_##name(a, vbslq_u8(is_first, a, b)); \
	} \
	static inline vector max_of_##name(vector a, vector b) \
	{ \
		vector is_first = vreinterpretq_u8_##mask_suffix( \
			vcgtq_##suffix(vreinterpretq_##suffix##_u8(a), vreinterpretq_##suffix##_u8(b))); \
		return instead_of_##name(a, vbslq_u8(is_first, a, b)); \
	} \
	static inline vector quotient_##name(vector v, vector scale) \
	{ \
		return vreinterpretq_u8_##suffix(vdivq_##suffix(vreinterpretq_##suffix##_u8(v), \
		                                                vreinterpretq_##suffix##_u8(scale))); \
	}
DEFINE_REAL_OPERATIONS(float32, float32x4_t, f32, u32)
DEFINE_REAL_OPERATIONS(float64, float64x2_t, f64, u64)

/* 16-bit floats in their own width: the magnitude with its sign compares as a number. */
static inline int16x8_t magnitude_of(vector v)
{
	return vandq_s16(vreinterpretq_s16_u8(v), vdupq_n_s16(0x7fff));
}

static inline int16x8_t key_of(vector v)
{
	int16x8_t sign = vshrq_n_s16(vreinterpretq_s16_u8(v), 15);
	return vsubq_s16(veorq_s16(magnitude_of(v), sign), sign);
}

static inline vector half_of(vector a, vector b, uint16x8_t is_first, int16_t infinity)
{
	const int16x8_t largest = vdupq_n_s16(infinity);
	uint16x8_t is_nan_a = vcgtq_s16(magnitude_of(a), largest);
	uint16x8_t is_nan_b = vcgtq_s16(magnitude_of(b), largest);
	uint16x8_t takes_a = vorrq_u16(is_nan_a, vbicq_u16(is_first, is_nan_b));
	return vbslq_u8(vreinterpretq_u8_u16(takes_a), a, b);
}

#define DEFINE_HALF_MIN_AND_MAX(name, infinity) \
	static inline vector min_of_##name(vector a, vector b) \
	{ \
		return half_of(a, b, vcltq_s16(key_of(a), key_of(b)), infinity); \
	} \
	static inline vector max_of_##name(vector a, vector b) \
	{ \
		return half_of(a, b, vcgtq_s16(key_of(a), key_of(b)), infinity); \
	}
DEFINE_HALF_MIN_AND_MAX(float16, 0x7c00)
DEFINE_HALF_MIN_AND_MAX(bfloat16, 0x7f80)

#define divisor_float32(divisor) vreinterpretq_u8_f32(vdupq_n_f32((float)(divisor)))
#define divisor_float64(divisor) vreinterpretq_u8_f64(vdupq_n_f64((double)(divisor)))
#define factor_float32(factor) vreinterpretq_u8_f32(vdupq_n_f32((float)(factor)))
#define factor_float64(factor) vreinterpretq_u8_f64(vdupq_n_f64(factor))

#include "kernels/reduce_vector.h"

void col_kernels_fill_neon(struct col_kernels *table)
{
	table_fill(table);
}
