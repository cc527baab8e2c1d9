/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For measuring: puts a fresh frame into the packet of a test run, which keeps what the last repeat made of it, and
 * calls the program under test. bare() is the least that a forwarding program can do; what it takes is subtracted.
 */

#include <linux/if_ether.h>

#define FRAME_WORDS 8

struct frame {
	__u64 word[FRAME_WORDS];
};

BPF_TABLE_PINNED("array", __u32, struct frame, frames, FRAMES, PINS "/frames", BPF_F_MMAPABLE);
BPF_TABLE_PINNED("percpu_array", __u32, __u32, cursor, 1, PINS "/cursor", 0);
BPF_TABLE_PINNED("prog", __u32, __u32, under_test, 1, PINS "/under_test", 0);

/* The frames in turn; FRAMES is a power of two. */
int restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, number;
	__u32 *next = cursor.lookup(&zero);
	struct frame *frame, *packet = data;
	int i;

	if (!next || (void *)(packet + 1) > end)
		return XDP_ABORTED;
	number = (*next)++ & (FRAMES - 1);
	frame = frames.lookup(&number);
	if (!frame)
		return XDP_ABORTED;
#pragma unroll
	for (i = 0; i < FRAME_WORDS; i++)
		packet->word[i] = frame->word[i];
	under_test.call(ctx, 0);
	return XDP_ABORTED;
}

int bare(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u8 address[ETH_ALEN];

	if ((void *)(eth + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(address, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, address, ETH_ALEN);
	return XDP_TX;
}
