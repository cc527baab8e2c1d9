/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Records of flows: which backend a flow has, where its slot does not tell. Unsettled slots make and read them, and
 * schedulers that do not hash. Fragments of a datagram are kept together by such records, too.
 *
 * A record is found by its tag alone. Two CPUs may write to one line; a reader checks the tag before and after, and what a
 * race can lose is a record that was as good as evicted.
 */

#define TICK_SHIFT 30 /* ns to ticks of about a second */
#define TICK_MASK 0xffffff /* what of a tick a record holds */
#define STATE_SHIFT 24
#define BEGUN_TICKS 60 /* how long a connection of which only the SYN was seen is remembered */
#define CLOSING_TICKS 60 /* one that is closed on one side */
#define CLOSED_TICKS 10 /* one that was reset */

/* bpf_ktime_get_coarse_ns(): the time of the last timer interrupt, at a fraction of the cost of the exact one. */
static __u64 (*coarse_ns)(void) = (void *)160;

static __always_inline __u32 ticks_now(void)
{
	return coarse_ns() >> TICK_SHIFT;
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

/* For how long a record in such a state counts. */
static __always_inline __u32 lifetime(__u32 state, __u32 idle)
{
	__u32 longest = idle;

	if (state == FLOW_CLOSED)
		longest = CLOSED_TICKS;
	else if (state == FLOW_CLOSING)
		longest = CLOSING_TICKS;
	else if (state == FLOW_BEGUN)
		longest = BEGUN_TICKS;
	return idle < longest ? idle : longest;
}

static __always_inline int is_over(__u32 seen, __u32 now, __u32 idle)
{
	return ((now - seen) & TICK_MASK) > lifetime(seen >> STATE_SHIFT, idle);
}

/* The record of a flow, if it has one that still counts. */
static __always_inline struct flow *find_flow(struct flow_line *line, __u64 tag, __u32 now, __u32 idle)
{
	int i;

#pragma unroll
	for (i = 0; i < FLOWS_PER_LINE; i++) {
		struct flow *flow = &line->flow[i];

		if (*(volatile __u64 *)&flow->tag == tag)
			return is_over(flow->seen, now, idle) ? NULL : flow;
	}
	return NULL;
}

/* Answers whether it was this change that was made: where states are counted, no other CPU's may come in between. */
static __always_inline int change_seen(struct flow *flow, __u32 old, __u32 new)
{
#if WITH_TRACKING
	__u64 *word = (void *)flow + offsetof(struct flow, backend); /* atomics are 8 bytes wide */
	__u32 backend = flow->backend;
	__u64 before = (__u64)old << 32 | backend;

	return __sync_val_compare_and_swap(word, before, (__u64) new << 32 | backend) == before;
#else
	flow->seen = new;
	return 1;
#endif
}

/* The backend in a flow's record, as recorded, or -1; a record that is used is as good as new. */
static __always_inline __s64 recall(struct flow *flow, __u64 tag, __u32 now)
{
	__u32 backend, seen, fresh;

	if (!flow)
		return -1;
	backend = flow->backend;
	seen = flow->seen;
	if (*(volatile __u64 *)&flow->tag != tag)
		return -1;
	fresh = (seen & ~TICK_MASK) | (now & TICK_MASK);
	if (seen != fresh)
		change_seen(flow, seen, fresh);
	return backend;
}

/* A backend and which of the records that had its number. */
static __always_inline __u32 recorded(const struct backend *backend, __u32 number)
{
	return (__u32)backend->generation << 24 | number;
}

/* The record of a backend that a flow was given to, if that is still the one; of this VIP, or of any if -1. */
static __always_inline struct backend *still_there(__s64 record, __s64 vip, __u32 *number)
{
	struct backend *backend;

	if (record < 0)
		return NULL;
	*number = record & 0xffffff;
	backend = backends.lookup(number);
	if (!backend || !backend->mode || (vip >= 0 && backend->vip != vip) ||
	    backend->generation != (record >> 24 & 0xff))
		return NULL;
	return backend;
}

/* Changes the number of connections that are open at a backend. */
static __always_inline void add_load(__u32 backend, __s64 change)
{
	__s64 *load = loads.lookup(&backend);

	if (load)
		__sync_fetch_and_add(load, change);
}

static __always_inline int is_counted(__u32 state)
{
	return state == FLOW_BEGUN || state == FLOW_OPEN;
}

/* Frees a place, and takes the flow that was recorded there off its backend's load. */
static __always_inline void forget_flow(struct flow *flow)
{
#if WITH_TRACKING
	__u32 backend = flow->backend, seen = flow->seen, number;
	__u64 tag = flow->tag;

	if (__sync_val_compare_and_swap(&flow->tag, tag, 0) == tag && tag && is_counted(seen >> STATE_SHIFT) &&
	    still_there(backend, -1, &number))
		add_load(number, -1);
#else
	*(volatile __u64 *)&flow->tag = 0;
#endif
}

/* Records the flow: in its own place, a free or idle one, or that of the record which was used least recently. */
static __always_inline void remember(struct flow_line *line, __u64 tag, __u32 backend, __u32 state, __u32 now,
				     __u32 idle)
{
	__u32 longest = 0, place = 0;
	struct flow *flow;
	int i;

#pragma unroll
	for (i = 0; i < FLOWS_PER_LINE; i++) {
		struct flow *here = &line->flow[i];
		__u32 silent = here->tag == tag ? 0xffffffff : !here->tag ? 0xfffffffe : (now - here->seen) & TICK_MASK;

		if (silent > longest || !i) {
			longest = silent;
			place = i;
		}
	}
	flow = &line->flow[place & (FLOWS_PER_LINE - 1)];
	if (flow->tag && flow->tag != tag && !is_over(flow->seen, now, idle))
		count_event(FLOW_EVICTED);
	if (flow->tag != tag)
		count_event(FLOW_RECORDED);
	forget_flow(flow);
	flow->backend = backend;
	flow->seen = state << STATE_SHIFT | (now & TICK_MASK);
	*(volatile __u64 *)&flow->tag = tag;
}

/* The state that a packet leaves its flow in. It is the same if the packet is looked at twice, as rare ones are. */
static __always_inline __u32 next_state(const struct packet *packet, __u32 state)
{
	struct tcphdr *tcp = tcp_of(packet);

	if (packet->kind == ICMP_ERROR)
		return state;
	if (tcp && tcp->rst)
		return FLOW_CLOSED;
	/* The port is used again. */
	if (tcp && tcp->syn && !tcp->ack && state >= FLOW_CLOSING)
		return FLOW_BEGUN;
	if (tcp && tcp->fin && !tcp->syn && state != FLOW_CLOSED)
		return FLOW_CLOSING;
	if (state == FLOW_BEGUN && !(tcp && tcp->syn))
		return FLOW_OPEN;
	return state;
}
