/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For measuring: puts a fresh frame into the packet of a test run, which keeps what the last repeat made of it, and
 * calls the program under test. What the least takes that such a program can do is subtracted: bare() for one that
 * keeps the packet's length, and half of what grow() takes more for one that does not, as restore() then has to shorten
 * the packet again.
 */

#include <linux/if_ether.h>

struct frame {
	__u64 word[FRAME_WORDS];
};

BPF_TABLE_PINNED("array", __u32, struct frame, frames, FRAMES, PINS "/frames", BPF_F_MMAPABLE);
BPF_TABLE_PINNED("percpu_array", __u32, __u32, cursor, 1, PINS "/cursor", 0);
BPF_TABLE_PINNED("prog", __u32, __u32, under_test, 1, PINS "/under_test", 0);

/* The frames in turn; FRAMES is a power of two. */
int restore(struct xdp_md *ctx)
{
	int grown = ctx->data_end - ctx->data - sizeof(struct frame);
	void *data, *end;
	__u32 zero = 0, number;
	__u32 *next = cursor.lookup(&zero);
	struct frame *frame, *packet;
	int i;

	if (grown && bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	packet = data;
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

static __always_inline int swap_and_send(struct xdp_md *ctx)
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

int bare(struct xdp_md *ctx)
{
	return swap_and_send(ctx);
}

int grow(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -20) ? XDP_ABORTED : swap_and_send(ctx);
}
