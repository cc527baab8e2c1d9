/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Schedulers that do not hash: each new flow gets a backend by turns, by its load or by chance, and a record of it.
 * A packet of an older flow that has none goes by the hash, as it does where flows are not recorded.
 */

#if WITH_TRACKING

#define LOAD_CANDIDATES 16 /* backends compared by least-connections; which ones is chance, if there are more */

static __always_inline slot_t turn_at(const struct table_header *header, __u32 turn)
{
	__u32 number = header->turns_line + turn / SLOTS_PER_LINE;
	struct slot_line *line = slots.lookup(&number);

	return line ? line->slot[turn % SLOTS_PER_LINE] : NO_BACKEND;
}

static __always_inline __u32 next_in_turn(const struct table_header *header, __u32 vip)
{
	__u32 *next = turns.lookup(&vip);

	if (!next)
		return NO_BACKEND;
	/* Each CPU has a turn of its own, so they begin at different places. */
	if (!*next)
		*next = bpf_get_prandom_u32();
	return turn_at(header, (*next)++ % header->turns);
}

/*
 * The backend with the least connections for its weight, of all or of as many as are looked at. Without branches on what is
 * compared, each of which would double what the verifier has to follow.
 */
static __always_inline __u32 least_loaded(const struct table_header *header)
{
	__u32 count = header->turns, place = bpf_get_prandom_u32(), i;
	__u64 best = 0, best_load = 1ULL << 31, best_weight = 1;

	for (i = 0; i < LOAD_CANDIDATES; i++) {
		__u32 turn = (place + i) % count, number = turn_at(header, 2 * turn);
		__u64 weight = turn_at(header, 2 * turn + 1), open, better;
		__s64 *load = loads.lookup(&number);

		if (!load)
			return NO_BACKEND;
		open = *load + 1; /* as it would be */
		open &= ~((__s64)open >> 63);
		better = (__s64)(open * best_weight - best_load * weight) >> 63;
		best ^= (best ^ number) & better;
		best_load ^= (best_load ^ open) & better;
		best_weight ^= (best_weight ^ weight) & better;
	}
	return best;
}

/* Takes note of what a packet does to its flow: a closing connection is no load. */
static __always_inline void note_state(const struct packet *packet, struct flow *flow, __u32 backend)
{
	__u32 seen = flow->seen, state = seen >> STATE_SHIFT, next = next_state(packet, state);

	if (next == state)
		return;
	if (change_seen(flow, seen, next << STATE_SHIFT | (seen & TICK_MASK)) && is_counted(state) && !is_counted(next))
		add_load(backend, -1);
}

/*
 * Sets the number of the backend that the flow has or gets. Answers 0 to leave it to the hash, and -1 if no backend takes it.
 */
static __always_inline int choose_tracked(const struct packet *packet, const struct vip *vip, __u32 vip_number,
					  __u64 table, __u32 *number)
{
	__u64 tag = flow_tag(packet->hash, vip_number);
	__u32 first_line = table, now = ticks_now(), idle = *(volatile const __u64 *)&vip->idle, chosen = 0;
	struct flow_line *line = flow_line(tag);
	struct table_header *header = (struct table_header *)slots.lookup(&first_line);
	__u8 scheduler = *(volatile const __u8 *)&vip->scheduler;
	struct backend *backend;
	struct flow *flow;
	slot_t *slot;

	if (!line || !header)
		return 0;
	flow = find_flow(line, tag, now, idle);
	/* A connection that begins where one lives already: unless its SYN was sent again, the port was used again. */
	if (flow && (!begins(packet) || flow->seen >> STATE_SHIFT == FLOW_BEGUN) &&
	    still_there(recall(flow, tag, now), vip_number, number)) {
		note_state(packet, flow, *number);
		return 1;
	}
	if (packet->kind == ICMP_ERROR || (packet->protocol == IPPROTO_TCP && !begins(packet)))
		return 0;
	switch (scheduler) {
	case SCHEDULER_ROUND_ROBIN:
	case SCHEDULER_LEAST_CONNECTIONS:
		if (header->turns_for != scheduler)
			return 0;
		if (!header->turns)
			return -1;
		chosen = scheduler == SCHEDULER_ROUND_ROBIN ? next_in_turn(header, vip_number) : least_loaded(header);
		break;
	default:
		slot = slot_at(first_line + 1, table >> 32, (__u64)bpf_get_prandom_u32() << 32);
		chosen = slot ? *slot & ~SLOT_FLAG : NO_BACKEND;
	}
	*number = chosen;
	backend = chosen == NO_BACKEND ? NULL : backends.lookup(number);
	if (!backend)
		return -1;
	remember(line, tag, recorded(backend, *number), FLOW_BEGUN, now, idle);
	add_load(*number, 1);
	return 1;
}

/* A backend's answer may end its connection. */
static __always_inline void note_answer(const struct packet *packet, const struct vip *vip, __u32 vip_number)
{
	struct tcphdr *tcp = tcp_of(packet);
	struct flow_line *line;
	struct flow *flow;
	__u64 tag;
	__u32 number;

	if (!tcp || !(tcp->fin || tcp->rst) || vip->scheduler < SCHEDULER_ROUND_ROBIN)
		return;
	tag = flow_tag(flow_hash(&packet->to, packet->from.port), vip_number);
	line = flow_line(tag);
	flow = line ? find_flow(line, tag, ticks_now(), *(volatile const __u64 *)&vip->idle) : NULL;
	if (flow && still_there(flow->backend, vip_number, &number))
		note_state(packet, flow, number);
}

/* Frees the place of a flow that has been silent for too long, so that it is no load any more. */
static __always_inline void sweep_flow(struct flow *flow, __u32 now)
{
	__u32 number, vip_number;
	struct backend *backend;
	struct vip *vip;

	if (!flow->tag || !is_counted(flow->seen >> STATE_SHIFT))
		return;
	backend = still_there(flow->backend, -1, &number);
	if (!backend)
		return;
	vip_number = backend->vip;
	vip = vips.lookup(&vip_number);
	if (vip && is_over(flow->seen, now, *(volatile __u64 *)&vip->idle))
		forget_flow(flow);
}

/*
 * Not for packets: the control plane runs it, again and again, on a frame that begins with the number of the line whose turn
 * it is.
 */
static __always_inline int sweep(struct xdp_md *ctx)
{
	__u32 *cursor = (void *)(long)ctx->data, now = ticks_now(), number, place;
	struct flow_line *line;

	if ((void *)(cursor + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	number = (*cursor)++ & (FLOW_LINES - 1);
	line = flows.lookup(&number);
	if (!line)
		return XDP_ABORTED;
#pragma unroll
	for (place = 0; place < FLOWS_PER_LINE; place++)
		sweep_flow(&line->flow[place], now);
	return XDP_DROP;
}

#endif
