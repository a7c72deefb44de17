/*
 * The data plane's frame header: 64 bytes, little-endian, laid out in docs/protocol.md section 8.
 * Decoding never trusts: the reason for a refusal is returned, not a boolean.
 */
#ifndef COL_WIRE_FRAME_H
#define COL_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define COL_FRAME_HEADER_BYTES 64u
#define COL_FRAME_HELLO_BYTES 32u
#define COL_FRAME_PAYLOAD_BYTES_MAX (1u << 20)
#define COL_FRAME_VERSION 1u

enum col_frame_kind {
	COL_FRAME_HELLO = 1,
	COL_FRAME_DATA = 2,
	COL_FRAME_REPAIR = 3,
	COL_FRAME_CREDIT = 4,
	COL_FRAME_HEARTBEAT = 5,
	COL_FRAME_DONE = 6, /* the sender's result of the operation is complete */
	COL_FRAME_SHARE = 7, /* whether the sender has attached to the shared segment: step 1 or 0 */

	/* Of messages; docs/protocol.md section 10. */
	COL_FRAME_OFFER = 8,    /* a message of `offset` bytes with tag `attempt`, all or none of its
	                         * payload; its sender can send pieces of `digest` bytes at most */
	COL_FRAME_FETCH = 9,    /* its receiver wants it, in pieces of `offset` bytes */
	COL_FRAME_MESSAGE = 10, /* a piece */
	COL_FRAME_TAKEN = 11,   /* its receiver has all of it */
	COL_FRAME_DECLINE = 12, /* its receiver does not want it; `step` says why */
	COL_FRAME_WITHDRAW = 13, /* its sender has given it up */

	/* Of sub-groups; docs/protocol.md section 11. */
	COL_FRAME_GRANT = 14 /* its receiver may send up to `offset` bytes in this epoch; with step 1,
	                      * its sender asks for that */
};

/* The payload of an offer. */
#define COL_FRAME_OFFER_BYTES_MAX 8192u

/*
 * Every kind carries delivered and credit. The group is 0, or names a sub-group, where the table
 * has it; a GRANT is never the group's own. What a kind does not use is zero:
 *
 * kind               group  attempt  op   offset  digest  lane, step  length
 * HELLO              -      yes      -    -       -       -           COL_FRAME_HELLO_BYTES
 * DATA               yes    yes      yes  yes     yes     yes         0…the maximum
 * REPAIR             yes    yes      yes  yes     -       -           0…the maximum
 * CREDIT, HEARTBEAT  -      -        -    -       -       -           0
 * DONE               yes    yes      yes  -       yes     -           0
 * SHARE              yes    yes      -    -       -       yes         0
 * OFFER              -      tag      yes  yes     yes     slot        0, or the message's length
 * FETCH              -      -        yes  yes     -       slot        0
 * MESSAGE            -      -        yes  yes     -       slot        1…the maximum
 * TAKEN, WITHDRAW    -      -        yes  -       -       slot        0
 * DECLINE            -      -        yes  -       -       slot, step  0
 * GRANT              yes    yes      -    yes     -       step        0
 *
 * The op of a message's frames is its number: messages are counted from 1 in each direction of a
 * connection.
 *
 * The attempt of a hello is the epoch for which the connection is made, its credit the window that
 * its sender grants.
 */
struct col_frame {
	uint8_t kind; /* enum col_frame_kind */
	uint16_t lane;
	uint16_t step;
	uint32_t group; /* 0: the group's own; else its sub-group of that name */
	uint32_t digest;
	uint64_t op;
	uint64_t attempt;
	uint64_t offset;
	uint32_t length;
	uint64_t delivered;
	uint32_t credit;
};

/* Payload of a hello frame. */
struct col_hello {
	uint64_t key;
	uint64_t source;
	uint64_t target;
	uint32_t stream;
	uint32_t stream_count;
	uint32_t window_bytes; /* the frame's credit, not in the payload; 0: unknown */
};

enum col_frame_reason {
	COL_FRAME_VALID = 0,
	COL_FRAME_BAD_MAGIC,
	COL_FRAME_BAD_VERSION,
	COL_FRAME_BAD_CHECKSUM,
	COL_FRAME_BAD_KIND,
	COL_FRAME_BAD_RESERVED,
	COL_FRAME_BAD_LENGTH, /* over the maximum, or not what the kind asks for */
	COL_FRAME_BAD_FIELD,  /* a field that the kind does not use is not zero */
	COL_FRAME_REASON_COUNT
};

/* The frame must be valid: what is encoded here is accepted by col_frame_decode. */
void col_frame_encode(const struct col_frame *frame, uint8_t header_out[COL_FRAME_HEADER_BYTES]);

/* COL_FRAME_VALID and *frame_out, or the first reason for a refusal in the order of the
 * enumeration; then *frame_out is untouched. */
enum col_frame_reason col_frame_decode(const uint8_t header[COL_FRAME_HEADER_BYTES],
                                       struct col_frame *frame_out);

/* A sentence without a full stop, such as "the magic number is not that of collect". */
const char *col_frame_reason_text(enum col_frame_reason reason);

void col_hello_encode(const struct col_hello *hello, uint8_t payload_out[COL_FRAME_HELLO_BYTES]);
void col_hello_decode(const uint8_t payload[COL_FRAME_HELLO_BYTES], struct col_hello *hello_out);

/* CRC-32C (Castagnoli), the polynomial of iSCSI (RFC 3720). */
uint32_t col_crc32c(const void *bytes, size_t count);
/* The same, without the instruction that some machines have for it. */
uint32_t col_crc32c_scalar(const void *bytes, size_t count);

#endif
