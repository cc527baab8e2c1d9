/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Records of flows: which backend a flow has, where its slot does not tell. Only unsettled slots make or read any.
 *
 * A record is found by its tag alone. Two CPUs may write to one line; a reader checks the tag before and after, and what a
 * race can lose is a record that was as good as evicted.
 */

#define TICK_SHIFT 30 /* ns to ticks of about a second */

static __always_inline void count_event(__u32 event)
{
	__u64 *counter = events.lookup(&event);

	if (counter)
		(*counter)++;
}

/* The tag of a flow to a VIP: never 0. */
static __always_inline __u64 flow_tag(__u64 hash, __u32 vip)
{
	hash = (hash ^ vip) * FLOW_MUL1;
	return (hash ^ hash >> 32) | 1;
}

static __always_inline struct flow_line *flow_line(__u64 tag)
{
	__u32 number = tag >> 32 & (FLOW_LINES - 1);

	return flows.lookup(&number);
}

/* The backend in the flow's record, as recorded, or -1; a record that is used is as good as new. */
static __always_inline __s64 recall(struct flow_line *line, __u64 tag, __u32 now, __u32 idle)
{
	int i;

#pragma unroll
	for (i = 0; i < FLOWS_PER_LINE; i++) {
		struct flow *flow = &line->flow[i];
		__u32 backend, seen;

		if (*(volatile __u64 *)&flow->tag != tag)
			continue;
		backend = flow->backend;
		seen = flow->seen;
		if (*(volatile __u64 *)&flow->tag != tag || now - seen > idle)
			return -1;
		if (seen != now)
			flow->seen = now;
		return backend;
	}
	return -1;
}

/* Records the flow: in its own place, a free or idle one, or that of the record which was used least recently. */
static __always_inline void remember(struct flow_line *line, __u64 tag, __u32 backend, __u32 now, __u32 idle)
{
	__u32 longest = 0, place = 0;
	struct flow *flow;
	int i;

#pragma unroll
	for (i = 0; i < FLOWS_PER_LINE; i++) {
		struct flow *here = &line->flow[i];
		__u32 silent = here->tag == tag ? 0xffffffff : !here->tag ? 0xfffffffe : now - here->seen;

		if (silent > longest || !i) {
			longest = silent;
			place = i;
		}
	}
	flow = &line->flow[place & (FLOWS_PER_LINE - 1)];
	if (flow->tag && flow->tag != tag && longest <= idle)
		count_event(FLOW_EVICTED);
	if (flow->tag != tag)
		count_event(FLOW_RECORDED);
	*(volatile __u64 *)&flow->tag = 0;
	flow->backend = backend;
	flow->seen = now;
	*(volatile __u64 *)&flow->tag = tag;
}
