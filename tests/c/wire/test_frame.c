#include "harness.h"

#include <inttypes.h>
#include <string.h>

#include "base/prng.h"
#include "wire/frame.h"

/* The bytes here were laid out by hand from docs/protocol.md, not by the encoder. */
static const struct col_frame golden_frame = {
	.kind = COL_FRAME_DATA,
	.lane = 0x0102,
	.step = 0x0304,
	.group = 0x11223344,
	.digest = 0xa1b2c3d4,
	.op = 0x0102030405060708,
	.attempt = 0x1112131415161718,
	.offset = 0x2122232425262728,
	.length = 0x00012345,
	.delivered = 0x3132333435363738,
	.credit = 0x41424344,
};
static const uint8_t golden_header[COL_FRAME_HEADER_BYTES] = {
	0x43, 0x4f, 0x4c, 0x31, 0x01, 0x02, 0x02, 0x01,
	0x44, 0x33, 0x22, 0x11, 0xd4, 0xc3, 0xb2, 0xa1,
	0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
	0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
	0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
	0x45, 0x23, 0x01, 0x00, 0x04, 0x03, 0x00, 0x00,
	0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
	0x44, 0x43, 0x42, 0x41, 0x1e, 0x58, 0x25, 0xbe,
};

static void check_frames_equal(const struct col_frame *left, const struct col_frame *right)
{
	CHECK_EQ(left->kind, right->kind);
	CHECK_EQ(left->lane, right->lane);
	CHECK_EQ(left->step, right->step);
	CHECK_EQ(left->group, right->group);
	CHECK_EQ(left->digest, right->digest);
	CHECK_EQ(left->op, right->op);
	CHECK_EQ(left->attempt, right->attempt);
	CHECK_EQ(left->offset, right->offset);
	CHECK_EQ(left->length, right->length);
	CHECK_EQ(left->delivered, right->delivered);
	CHECK_EQ(left->credit, right->credit);
}

static void put_u32(uint8_t *target, uint32_t value)
{
	for (int byte = 0; byte < 4; byte++)
		target[byte] = (uint8_t)(value >> 8 * byte);
}

/* Makes the checksum right again, so that what is tested is what comes after it. */
static void header_seal(uint8_t header[COL_FRAME_HEADER_BYTES])
{
	put_u32(header + 60, col_crc32c(header, 60));
}

/* A header of zeroes but for what every frame of this kind must have. */
static void header_make(uint8_t kind, uint32_t length, uint8_t header_out[COL_FRAME_HEADER_BYTES])
{
	memset(header_out, 0, COL_FRAME_HEADER_BYTES);
	memcpy(header_out, "COL1", 4);
	header_out[4] = 1;
	header_out[5] = kind;
	put_u32(header_out + 40, length);
	header_seal(header_out);
}

static enum col_frame_reason header_judge(const uint8_t header[COL_FRAME_HEADER_BYTES])
{
	struct col_frame frame;
	return col_frame_decode(header, &frame);
}

/* What decoding says once the byte at `offset` is `value` and the checksum is right again. */
static enum col_frame_reason judge_with(uint8_t kind, uint32_t length, size_t offset,
                                        uint8_t value)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	header_make(kind, length, header);
	CHECK_EQ(header_judge(header), COL_FRAME_VALID);
	header[offset] = value;
	header_seal(header);
	return header_judge(header);
}

/* ---- checksum ------------------------------------------------------------------------------ */

static void check_crc32c(uint32_t (*crc32c)(const void *bytes, size_t count))
{
	uint8_t bytes[32];
	CHECK_EQ(crc32c("123456789", 9), 0xe3069283u);
	CHECK_EQ(crc32c("", 0), 0u);
	memset(bytes, 0, sizeof(bytes));
	CHECK_EQ(crc32c(bytes, sizeof(bytes)), 0x8a9136aau);
	memset(bytes, 0xff, sizeof(bytes));
	CHECK_EQ(crc32c(bytes, sizeof(bytes)), 0x62a8ab43u);
	for (uint8_t index = 0; index < sizeof(bytes); index++)
		bytes[index] = index;
	CHECK_EQ(crc32c(bytes, sizeof(bytes)), 0x46dd794eu);
	for (uint8_t index = 0; index < sizeof(bytes); index++)
		bytes[index] = (uint8_t)(31 - index);
	CHECK_EQ(crc32c(bytes, sizeof(bytes)), 0x113fdb5cu);
}

TEST(the_checksum_is_that_of_rfc_3720_appendix_b_4)
{
	check_crc32c(col_crc32c);
	check_crc32c(col_crc32c_scalar);
}

TEST(the_checksum_is_the_same_with_and_without_the_instruction)
{
	uint8_t bytes[300];
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (size_t index = 0; index < sizeof(bytes); index++)
		bytes[index] = (uint8_t)col_prng_next(&prng);
	for (size_t begin = 0; begin < 9; begin++) {
		for (size_t count = 0; begin + count <= sizeof(bytes); count++)
			CHECK_EQ(col_crc32c(bytes + begin, count),
			         col_crc32c_scalar(bytes + begin, count));
	}
}

/* ---- encoding ------------------------------------------------------------------------------ */

TEST(the_header_is_laid_out_as_documented)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	memset(header, 0xff, sizeof(header));
	col_frame_encode(&golden_frame, header);
	CHECK_BYTES_EQ(header, golden_header, sizeof(header));
}

TEST(the_documented_header_is_decoded)
{
	struct col_frame frame;
	CHECK_EQ(col_frame_decode(golden_header, &frame), COL_FRAME_VALID);
	check_frames_equal(&frame, &golden_frame);
}

TEST(the_hello_is_laid_out_as_documented)
{
	static const uint8_t golden[COL_FRAME_HELLO_BYTES] = {
		0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
		0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
		0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
		0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41,
	};
	static const struct col_hello hello = {
		.key = 0x0102030405060708,
		.source = 0x1112131415161718,
		.target = 0x2122232425262728,
		.stream = 0x31323334,
		.stream_count = 0x41424344,
	};
	uint8_t payload[COL_FRAME_HELLO_BYTES];
	col_hello_encode(&hello, payload);
	CHECK_BYTES_EQ(payload, golden, sizeof(payload));

	struct col_hello decoded;
	col_hello_decode(golden, &decoded);
	CHECK_EQ(decoded.key, hello.key);
	CHECK_EQ(decoded.source, hello.source);
	CHECK_EQ(decoded.target, hello.target);
	CHECK_EQ(decoded.stream, hello.stream);
	CHECK_EQ(decoded.stream_count, hello.stream_count);
}

/* Any fields that the kind allows, the limits among them. */
static struct col_frame frame_draw(struct col_prng *prng)
{
	struct col_frame frame = {
		.kind = (uint8_t)(COL_FRAME_HELLO + col_prng_below(prng, 5)),
		.delivered = col_prng_next(prng),
		.credit = (uint32_t)col_prng_next(prng),
	};
	if (frame.kind == COL_FRAME_HELLO) {
		frame.attempt = col_prng_next(prng);
		frame.length = COL_FRAME_HELLO_BYTES;
	}
	if (frame.kind == COL_FRAME_DATA || frame.kind == COL_FRAME_REPAIR) {
		frame.group = (uint32_t)col_prng_next(prng);
		frame.op = col_prng_next(prng);
		frame.attempt = col_prng_next(prng);
		frame.offset = col_prng_next(prng);
		frame.length = (uint32_t)col_prng_below(prng, COL_FRAME_PAYLOAD_BYTES_MAX + 1);
	}
	if (frame.kind == COL_FRAME_DATA) {
		frame.lane = (uint16_t)col_prng_next(prng);
		frame.step = (uint16_t)col_prng_next(prng);
		frame.digest = (uint32_t)col_prng_next(prng);
	}
	return frame;
}

TEST(what_is_encoded_is_decoded)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (int round = 0; round < 20000; round++) {
		struct col_frame frame = frame_draw(&prng);
		struct col_frame decoded;
		uint8_t header[COL_FRAME_HEADER_BYTES];
		col_frame_encode(&frame, header);
		CHECK_EQ(col_frame_decode(header, &decoded), COL_FRAME_VALID);
		check_frames_equal(&decoded, &frame);
	}
}

static void encode_an_invalid_frame(void)
{
	struct col_frame frame = {.kind = COL_FRAME_HEARTBEAT, .op = 1};
	uint8_t header[COL_FRAME_HEADER_BYTES];
	col_frame_encode(&frame, header);
}

TEST(encoding_what_would_be_refused_is_a_bug)
{
	CHECK(test_aborts(encode_an_invalid_frame));
}

/* ---- refusals ------------------------------------------------------------------------------ */

TEST(a_foreign_magic_is_refused)
{
	for (size_t offset = 0; offset < 4; offset++)
		CHECK_EQ(judge_with(COL_FRAME_HEARTBEAT, 0, offset, 'x'), COL_FRAME_BAD_MAGIC);
}

TEST(another_version_is_refused_whatever_follows)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	memset(header, 0xee, sizeof(header));
	memcpy(header, "COL1", 4);
	header[4] = 2;
	CHECK_EQ(header_judge(header), COL_FRAME_BAD_VERSION);
	header[4] = 0;
	CHECK_EQ(header_judge(header), COL_FRAME_BAD_VERSION);
}

TEST(a_wrong_checksum_is_refused_before_any_field_is_looked_at)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	header_make(COL_FRAME_HEARTBEAT, 0, header);
	header[5] = 200;
	CHECK_EQ(header_judge(header), COL_FRAME_BAD_CHECKSUM);
}

TEST(an_unknown_kind_is_refused)
{
	for (unsigned kind = 0; kind < 256; kind++) {
		if (kind >= COL_FRAME_HELLO && kind <= COL_FRAME_GRANT)
			continue;
		CHECK_EQ(judge_with(COL_FRAME_HEARTBEAT, 0, 5, (uint8_t)kind), COL_FRAME_BAD_KIND);
	}
}

TEST(reserved_bytes_that_are_not_zero_are_refused)
{
	for (uint8_t kind = COL_FRAME_HELLO; kind <= COL_FRAME_HEARTBEAT; kind++) {
		uint32_t length = kind == COL_FRAME_HELLO ? COL_FRAME_HELLO_BYTES : 0;
		CHECK_EQ(judge_with(kind, length, 46, 1), COL_FRAME_BAD_RESERVED);
		CHECK_EQ(judge_with(kind, length, 47, 0x80), COL_FRAME_BAD_RESERVED);
	}
}

static enum col_frame_reason judge_length(uint8_t kind, uint32_t length)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	header_make(kind, length, header);
	return header_judge(header);
}

TEST(a_length_that_the_kind_does_not_have_is_refused)
{
	for (uint8_t kind = COL_FRAME_DATA; kind <= COL_FRAME_REPAIR; kind++) {
		CHECK_EQ(judge_length(kind, 0), COL_FRAME_VALID);
		CHECK_EQ(judge_length(kind, COL_FRAME_PAYLOAD_BYTES_MAX), COL_FRAME_VALID);
		CHECK_EQ(judge_length(kind, COL_FRAME_PAYLOAD_BYTES_MAX + 1), COL_FRAME_BAD_LENGTH);
		CHECK_EQ(judge_length(kind, UINT32_MAX), COL_FRAME_BAD_LENGTH);
	}
	for (uint8_t kind = COL_FRAME_CREDIT; kind <= COL_FRAME_HEARTBEAT; kind++) {
		CHECK_EQ(judge_length(kind, 0), COL_FRAME_VALID);
		CHECK_EQ(judge_length(kind, 1), COL_FRAME_BAD_LENGTH);
	}
	for (uint8_t kind = COL_FRAME_TAKEN; kind <= COL_FRAME_WITHDRAW; kind++) {
		CHECK_EQ(judge_length(kind, 0), COL_FRAME_VALID);
		CHECK_EQ(judge_length(kind, 1), COL_FRAME_BAD_LENGTH);
	}
	CHECK_EQ(judge_length(COL_FRAME_OFFER, 0), COL_FRAME_VALID);
	CHECK_EQ(judge_length(COL_FRAME_OFFER, COL_FRAME_OFFER_BYTES_MAX), COL_FRAME_VALID);
	CHECK_EQ(judge_length(COL_FRAME_OFFER, COL_FRAME_OFFER_BYTES_MAX + 1),
	         COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_FETCH, 1), COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_MESSAGE, 0), COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_MESSAGE, 1), COL_FRAME_VALID);
	CHECK_EQ(judge_length(COL_FRAME_MESSAGE, COL_FRAME_PAYLOAD_BYTES_MAX), COL_FRAME_VALID);
	CHECK_EQ(judge_length(COL_FRAME_MESSAGE, COL_FRAME_PAYLOAD_BYTES_MAX + 1),
	         COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_HELLO, COL_FRAME_HELLO_BYTES), COL_FRAME_VALID);
	CHECK_EQ(judge_length(COL_FRAME_HELLO, COL_FRAME_HELLO_BYTES - 1), COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_HELLO, COL_FRAME_HELLO_BYTES + 1), COL_FRAME_BAD_LENGTH);
	CHECK_EQ(judge_length(COL_FRAME_HELLO, 0), COL_FRAME_BAD_LENGTH);
}

TEST(words_of_sub_groups_name_them_and_a_grant_is_never_the_groups_own)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	struct col_frame decoded;
	struct col_frame frame = {.kind = COL_FRAME_GRANT, .group = 5, .attempt = 3, .offset = 99,
	                          .step = 1};
	col_frame_encode(&frame, header);
	CHECK_EQ(col_frame_decode(header, &decoded), COL_FRAME_VALID);
	check_frames_equal(&decoded, &frame);
	memset(header + 8, 0, 4);
	header_seal(header);
	CHECK_EQ(col_frame_decode(header, &decoded), COL_FRAME_BAD_FIELD);
	frame = (struct col_frame){.kind = COL_FRAME_TAKEN, .op = 1};
	col_frame_encode(&frame, header);
	header[8] = 1;
	header_seal(header);
	CHECK_EQ(col_frame_decode(header, &decoded), COL_FRAME_BAD_FIELD);
}

TEST(a_field_that_the_kind_does_not_use_must_be_zero)
{
	static const struct {
		size_t begin;
		size_t end;
		unsigned users; /* bit per kind */
	} fields[] = {
		{6, 8, 1u << COL_FRAME_DATA},                            /* lane */
		{8, 12, 1u << COL_FRAME_DATA | 1u << COL_FRAME_REPAIR},  /* group */
		{12, 16, 1u << COL_FRAME_DATA},                          /* digest */
		{16, 24, 1u << COL_FRAME_DATA | 1u << COL_FRAME_REPAIR}, /* op */
		/* attempt */
		{24, 32, 1u << COL_FRAME_DATA | 1u << COL_FRAME_REPAIR | 1u << COL_FRAME_HELLO},
		{32, 40, 1u << COL_FRAME_DATA | 1u << COL_FRAME_REPAIR}, /* offset */
		{44, 46, 1u << COL_FRAME_DATA},                          /* step */
		{48, 60, ~0u},                                           /* delivered, credit */
	};
	for (uint8_t kind = COL_FRAME_HELLO; kind <= COL_FRAME_HEARTBEAT; kind++) {
		uint32_t length = kind == COL_FRAME_HELLO ? COL_FRAME_HELLO_BYTES : 0;
		for (size_t field = 0; field < sizeof(fields) / sizeof(fields[0]); field++) {
			bool is_used = (fields[field].users >> kind & 1) != 0;
			for (size_t offset = fields[field].begin; offset < fields[field].end; offset++)
				CHECK_EQ(judge_with(kind, length, offset, 0x40),
				         is_used ? COL_FRAME_VALID : COL_FRAME_BAD_FIELD);
		}
	}
}

TEST(every_single_bit_flip_of_a_header_is_refused)
{
	for (size_t bit = 0; bit < COL_FRAME_HEADER_BYTES * 8; bit++) {
		uint8_t header[COL_FRAME_HEADER_BYTES];
		memcpy(header, golden_header, sizeof(header));
		header[bit / 8] ^= (uint8_t)(1u << bit % 8);
		enum col_frame_reason expected = bit < 32   ? COL_FRAME_BAD_MAGIC
		                                 : bit < 40 ? COL_FRAME_BAD_VERSION
		                                            : COL_FRAME_BAD_CHECKSUM;
		CHECK_EQ(header_judge(header), expected);
	}
}

TEST(a_refused_header_leaves_the_frame_untouched)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	struct col_frame frame;
	struct col_frame before;
	memset(&before, 0x5a, sizeof(before));
	memcpy(&frame, &before, sizeof(frame));
	header_make(COL_FRAME_CREDIT, 1, header);
	CHECK_EQ(col_frame_decode(header, &frame), COL_FRAME_BAD_LENGTH);
	CHECK_BYTES_EQ(&frame, &before, sizeof(frame));
}

TEST(every_reason_has_its_own_text)
{
	for (int a = 0; a <= COL_FRAME_REASON_COUNT; a++) {
		const char *text = col_frame_reason_text((enum col_frame_reason)a);
		CHECK(text != NULL && strlen(text) > 10 && text[strlen(text) - 1] != '.');
		for (int b = 0; b < a; b++)
			CHECK(strcmp(text, col_frame_reason_text((enum col_frame_reason)b)) != 0);
	}
}

/* ---- fuzzing ------------------------------------------------------------------------------- */

/* One input: decoding answers with a known reason, and what it accepts is exactly what encoding
 * would have sent. */
static enum col_frame_reason fuzz_one(const uint8_t header[COL_FRAME_HEADER_BYTES])
{
	struct col_frame frame;
	enum col_frame_reason reason = col_frame_decode(header, &frame);
	CHECK((unsigned)reason < COL_FRAME_REASON_COUNT);
	if (reason == COL_FRAME_VALID) {
		uint8_t again[COL_FRAME_HEADER_BYTES];
		col_frame_encode(&frame, again);
		CHECK_BYTES_EQ(again, header, sizeof(again));
	}
	return reason;
}

TEST(no_header_confuses_the_decoder)
{
	uint64_t seed = test_seed();
	unsigned seen[COL_FRAME_REASON_COUNT] = {0};
	struct col_prng prng;
	col_prng_init(&prng, seed);
	for (int round = 0; round < 200000; round++) {
		uint8_t header[COL_FRAME_HEADER_BYTES];
		struct col_frame frame = frame_draw(&prng);
		col_frame_encode(&frame, header);
		for (uint64_t change = col_prng_below(&prng, 4); change > 0; change--)
			header[col_prng_below(&prng, sizeof(header))] = (uint8_t)col_prng_next(&prng);
		if (col_prng_below(&prng, 8) != 0)
			header_seal(header);
		seen[fuzz_one(header)]++;
	}
	for (int reason = 0; reason < COL_FRAME_REASON_COUNT; reason++) {
		if (seen[reason] == 0)
			FAIL("seed %" PRIu64 " never gave: %s", seed,
			     col_frame_reason_text((enum col_frame_reason)reason));
	}
}
