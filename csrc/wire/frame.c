#include "wire/frame.h"

#include <stdbool.h>
#include <string.h>

#include "base/assert.h"

static const uint8_t magic[4] = {'C', 'O', 'L', '1'};

enum offset {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_KIND = 5,
	AT_LANE = 6,
	AT_GROUP = 8,
	AT_DIGEST = 12,
	AT_OP = 16,
	AT_ATTEMPT = 24,
	AT_OFFSET = 32,
	AT_LENGTH = 40,
	AT_STEP = 44,
	AT_RESERVED = 46,
	AT_DELIVERED = 48,
	AT_CREDIT = 56,
	AT_CHECKSUM = 60,
};

/* What each kind may carry. Delivered and credit are in every frame. */
static const struct {
	uint32_t length_min;
	uint32_t length_max;
	bool has_attempt; /* of a hello: the epoch for which the connection is made */
	bool has_op;
	bool has_offset;
	bool has_digest;
	bool has_place;   /* lane, step */
	bool has_group;
} kinds[COL_FRAME_GRANT + 1] = {
	[COL_FRAME_HELLO] = {COL_FRAME_HELLO_BYTES, COL_FRAME_HELLO_BYTES, .has_attempt = true},
	[COL_FRAME_DATA] = {0, COL_FRAME_PAYLOAD_BYTES_MAX, true, true, true, true, true, true},
	[COL_FRAME_REPAIR] = {0, COL_FRAME_PAYLOAD_BYTES_MAX, true, true, true, false, false, true},
	[COL_FRAME_CREDIT] = {0},
	[COL_FRAME_HEARTBEAT] = {0},
	[COL_FRAME_DONE] = {0, 0, true, true, false, true, false, true},
	[COL_FRAME_SHARE] = {0, 0, true, false, false, false, true, true},
	[COL_FRAME_OFFER] = {0, COL_FRAME_OFFER_BYTES_MAX, true, true, true, true, true},
	[COL_FRAME_FETCH] = {0, 0, false, true, true, false, true},
	[COL_FRAME_MESSAGE] = {1, COL_FRAME_PAYLOAD_BYTES_MAX, false, true, true, false, true},
	[COL_FRAME_TAKEN] = {0, 0, false, true, false, false, true},
	[COL_FRAME_DECLINE] = {0, 0, false, true, false, false, true},
	[COL_FRAME_WITHDRAW] = {0, 0, false, true, false, false, true},
	[COL_FRAME_GRANT] = {0, 0, true, false, true, false, true, true},
};

/* ---- little-endian numbers ----------------------------------------------------------------- */

/* Compilers make one instruction of each of these where the machine is little-endian. */
static void put_u16(uint8_t *target, uint16_t value)
{
	target[0] = (uint8_t)value;
	target[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *target, uint32_t value)
{
	target[0] = (uint8_t)value;
	target[1] = (uint8_t)(value >> 8);
	target[2] = (uint8_t)(value >> 16);
	target[3] = (uint8_t)(value >> 24);
}

static void put_u64(uint8_t *target, uint64_t value)
{
	put_u32(target, (uint32_t)value);
	put_u32(target + 4, (uint32_t)(value >> 32));
}

static uint16_t get_u16(const uint8_t *source)
{
	return (uint16_t)(source[0] | source[1] << 8);
}

static uint32_t get_u32(const uint8_t *source)
{
	return (uint32_t)source[0] | (uint32_t)source[1] << 8 | (uint32_t)source[2] << 16
	       | (uint32_t)source[3] << 24;
}

static uint64_t get_u64(const uint8_t *source)
{
	return (uint64_t)get_u32(source) | (uint64_t)get_u32(source + 4) << 32;
}

/* ---- frames -------------------------------------------------------------------------------- */

/* Whether the fields fit the kind. */
static enum col_frame_reason frame_judge(const struct col_frame *frame, uint16_t reserved)
{
	if (frame->kind < COL_FRAME_HELLO || frame->kind > COL_FRAME_GRANT)
		return COL_FRAME_BAD_KIND;
	if (reserved != 0)
		return COL_FRAME_BAD_RESERVED;
	if (frame->length < kinds[frame->kind].length_min
	    || frame->length > kinds[frame->kind].length_max)
		return COL_FRAME_BAD_LENGTH;
	if (!kinds[frame->kind].has_group && frame->group != 0)
		return COL_FRAME_BAD_FIELD;
	if (frame->kind == COL_FRAME_GRANT && frame->group == 0)
		return COL_FRAME_BAD_FIELD;
	if (!kinds[frame->kind].has_attempt && frame->attempt != 0)
		return COL_FRAME_BAD_FIELD;
	if (!kinds[frame->kind].has_op && frame->op != 0)
		return COL_FRAME_BAD_FIELD;
	if (!kinds[frame->kind].has_offset && frame->offset != 0)
		return COL_FRAME_BAD_FIELD;
	if (!kinds[frame->kind].has_digest && frame->digest != 0)
		return COL_FRAME_BAD_FIELD;
	if (!kinds[frame->kind].has_place && (frame->lane | frame->step) != 0)
		return COL_FRAME_BAD_FIELD;
	return COL_FRAME_VALID;
}

void col_frame_encode(const struct col_frame *frame, uint8_t header_out[COL_FRAME_HEADER_BYTES])
{
	COL_ASSERT(frame_judge(frame, 0) == COL_FRAME_VALID);

	memcpy(header_out + AT_MAGIC, magic, sizeof(magic));
	header_out[AT_VERSION] = COL_FRAME_VERSION;
	header_out[AT_KIND] = frame->kind;
	put_u16(header_out + AT_LANE, frame->lane);
	put_u32(header_out + AT_GROUP, frame->group);
	put_u32(header_out + AT_DIGEST, frame->digest);
	put_u64(header_out + AT_OP, frame->op);
	put_u64(header_out + AT_ATTEMPT, frame->attempt);
	put_u64(header_out + AT_OFFSET, frame->offset);
	put_u32(header_out + AT_LENGTH, frame->length);
	put_u16(header_out + AT_STEP, frame->step);
	put_u16(header_out + AT_RESERVED, 0);
	put_u64(header_out + AT_DELIVERED, frame->delivered);
	put_u32(header_out + AT_CREDIT, frame->credit);
	put_u32(header_out + AT_CHECKSUM, col_crc32c(header_out, AT_CHECKSUM));
}

enum col_frame_reason col_frame_decode(const uint8_t header[COL_FRAME_HEADER_BYTES],
                                       struct col_frame *frame_out)
{
	if (memcmp(header + AT_MAGIC, magic, sizeof(magic)) != 0)
		return COL_FRAME_BAD_MAGIC;
	if (header[AT_VERSION] != COL_FRAME_VERSION)
		return COL_FRAME_BAD_VERSION;
	if (get_u32(header + AT_CHECKSUM) != col_crc32c(header, AT_CHECKSUM))
		return COL_FRAME_BAD_CHECKSUM;

	struct col_frame frame = {
		.kind = header[AT_KIND],
		.lane = get_u16(header + AT_LANE),
		.step = get_u16(header + AT_STEP),
		.group = get_u32(header + AT_GROUP),
		.digest = get_u32(header + AT_DIGEST),
		.op = get_u64(header + AT_OP),
		.attempt = get_u64(header + AT_ATTEMPT),
		.offset = get_u64(header + AT_OFFSET),
		.length = get_u32(header + AT_LENGTH),
		.delivered = get_u64(header + AT_DELIVERED),
		.credit = get_u32(header + AT_CREDIT),
	};
	enum col_frame_reason reason = frame_judge(&frame, get_u16(header + AT_RESERVED));
	if (reason == COL_FRAME_VALID)
		*frame_out = frame;
	return reason;
}

const char *col_frame_reason_text(enum col_frame_reason reason)
{
	switch (reason) {
	case COL_FRAME_VALID: return "the frame is valid";
	case COL_FRAME_BAD_MAGIC: return "the magic number is not that of collect";
	case COL_FRAME_BAD_VERSION: return "the version of the frame format is not ours";
	case COL_FRAME_BAD_CHECKSUM: return "the checksum does not match the header";
	case COL_FRAME_BAD_KIND: return "the kind of frame is unknown";
	case COL_FRAME_BAD_RESERVED: return "the reserved bytes are not zero";
	case COL_FRAME_BAD_LENGTH: return "the length is not one that this kind of frame has";
	case COL_FRAME_BAD_FIELD: return "a field that this kind of frame does not use is not zero";
	case COL_FRAME_REASON_COUNT: break;
	}
	return "the reason is unknown";
}

/* ---- hello --------------------------------------------------------------------------------- */

void col_hello_encode(const struct col_hello *hello, uint8_t payload_out[COL_FRAME_HELLO_BYTES])
{
	put_u64(payload_out, hello->key);
	put_u64(payload_out + 8, hello->source);
	put_u64(payload_out + 16, hello->target);
	put_u32(payload_out + 24, hello->stream);
	put_u32(payload_out + 28, hello->stream_count);
}

void col_hello_decode(const uint8_t payload[COL_FRAME_HELLO_BYTES], struct col_hello *hello_out)
{
	hello_out->key = get_u64(payload);
	hello_out->source = get_u64(payload + 8);
	hello_out->target = get_u64(payload + 16);
	hello_out->stream = get_u32(payload + 24);
	hello_out->stream_count = get_u32(payload + 28);
	hello_out->window_bytes = 0;
}
