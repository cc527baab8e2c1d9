/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Puts a frame with another source address into each packet of a test run: the next one every time, so that no two are of
 * one client. Then a program under test goes on with it, if there is one; else it is sent.
 */

struct frame {
	__u64 word[FRAME_WORDS];
};

BPF_TABLE_PINNED("array", __u32, struct frame, frame, 1, PINS "/frame", 0);
BPF_TABLE_PINNED("array", __u32, __u64, sent, 1, PINS "/sent", 0);
BPF_TABLE_PINNED("prog", __u32, __u32, under_test, 1, PINS "/under_test", 0);

int flood(struct xdp_md *ctx)
{
	int grown = ctx->data_end - ctx->data - sizeof(struct frame);
	struct frame *template, *packet;
	__u32 zero = 0, *source;
	__u64 *count;
	int i;

	/* What a tunnel added to the last packet of a test run, and what any packet of live frames is too long by. */
	if (grown && bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;
	packet = (void *)(long)ctx->data;
	template = frame.lookup(&zero);
	count = sent.lookup(&zero);
	if (!template || !count || (void *)(packet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (i = 0; i < FRAME_WORDS; i++)
		packet->word[i] = template->word[i];
	source = (void *)packet + SOURCE_AT;
	*source = bpf_htonl(bpf_ntohl(*source) + __sync_fetch_and_add(count, 1));
	under_test.call(ctx, 0);
	return XDP_TX;
}
