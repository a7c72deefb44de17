/* A peer by hand: it speaks the protocol over plain sockets, and says what a test wants said. */
#ifndef COL_TEST_HUB_H
#define COL_TEST_HUB_H

#include "comm/world.h"
#include "wire/frame.h"

#define KEY 77u
#define LIAR 500u
#define CHUNK 4096u
#define HELLO_BYTES (COL_FRAME_HEADER_BYTES + COL_FRAME_HELLO_BYTES)

int dial(const struct world *world, uint32_t peer);
/* False: the other side has closed. */
bool put(int fd, const void *bytes, size_t count);
void get(int fd, void *bytes, size_t count);
bool frame_put(int fd, const struct col_frame *frame);
void hello_put(int fd, const struct col_hello *hello, uint64_t epoch);
/* The liar's. */
struct col_hello hello_to(const struct world *world, uint32_t peer, uint32_t stream);
/* A connection that is up. */
int enter(const struct world *world, uint32_t peer);

/* The liar as rank 0 of a star, whom the one engine of the world dials. */
struct hub {
	struct world world;
	int listener;
	int fds[2]; /* by stream; -1: none */
	struct collect_member members[2];
};

void hub_open(struct hub *hub, uint16_t streams, uint32_t commit_bytes);
void hub_close(struct hub *hub);
int hub_accept(struct hub *hub);
/* The next epoch, with the same members. */
void hub_install(struct hub *hub, const struct verdict *verdict);
/* The next frame of an operation, from either stream. */
struct col_frame hub_get(struct hub *hub);
/* What the hub answers to a contribution: the result of that chunk. */
struct col_frame answer_to(struct col_frame frame);
/* Answers contributions of so many bytes with zeros. Returns the last one. */
struct col_frame hub_serve(struct hub *hub, size_t bytes);

#endif
