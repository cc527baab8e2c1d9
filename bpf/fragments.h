/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fragments. The first of a datagram has its ports, and decides; it leaves a record for the others. It leaves another one
 * for any datagram between its addresses, by which a fragment goes that has overtaken its first one: most likely it is of
 * the same flow as the one before.
 */

#define FRAGMENT_TICKS 30 /* hosts wait 30 to 60 s for missing fragments (RFC 791, RFC 8200) */

static __always_inline __u64 fragment_tag(const struct packet *packet, __u32 way, __u64 datagram)
{
	struct endpoint from = packet->from;
	__u64 hash;

	from.port = 0;
	hash = flow_hash(&from, 0) ^ packet->to.lo;
	hash = (hash ^ hash >> 32) * FLOW_MUL1 ^ packet->to.hi;
	hash = (hash ^ hash >> 32) * FLOW_MUL2 ^ (datagram << 8 | way);
	hash = (hash ^ hash >> 32) * FLOW_MUL1;
	return (hash ^ hash >> 32) | 1;
}

static __always_inline struct flow_line *fragment_line(__u64 tag)
{
	__u32 number = tag >> 32 & (FRAGMENT_LINES - 1);

	return fragments.lookup(&number);
}

#define ANY_DATAGRAM (1ULL << 40)

static __always_inline void remember_fragment_as(__u64 tag, __u32 backend, __u32 now)
{
	struct flow_line *line = fragment_line(tag);
	struct flow *place, *oldest = NULL;
	int i;

	if (!line)
		return;
	oldest = &line->flow[0];
#pragma unroll
	for (i = 0; i < FLOWS_PER_LINE; i++) {
		place = &line->flow[i];
		if (place->tag == tag) {
			oldest = place;
			break;
		}
		if (((now - place->seen) & TICK_MASK) > ((now - oldest->seen) & TICK_MASK) || !place->tag)
			oldest = place;
	}
	oldest->tag = 0;
	oldest->backend = backend;
	oldest->seen = now & TICK_MASK;
	*(volatile __u64 *)&oldest->tag = tag;
}

static __always_inline void remember_fragment(const struct packet *packet, enum way way, const struct backend *backend,
					      __u32 number)
{
	__u32 now = ticks_now(), record = recorded(backend, number);

	remember_fragment_as(fragment_tag(packet, way, packet->fragment), record, now);
	remember_fragment_as(fragment_tag(packet, way, ANY_DATAGRAM), record, now);
}

/*
 * The backend that a later fragment belongs to or comes from. One of another protocol than those of VIPs is ours only if its
 * own first fragment was, behind extension headers.
 */
static __always_inline struct backend *recall_fragment(const struct packet *packet, enum way way, __u32 *number)
{
	__u32 now = ticks_now();
	__u64 tag = fragment_tag(packet, way, packet->fragment);
	struct flow_line *line = fragment_line(tag);
	struct backend *backend;

	if (!line)
		return NULL;
	backend = still_there(recall(find_flow(line, tag, now, FRAGMENT_TICKS), tag, now), -1, number);
	if (backend || !is_flow(packet->protocol))
		return backend;
	tag = fragment_tag(packet, way, ANY_DATAGRAM);
	line = fragment_line(tag);
	if (!line)
		return NULL;
	return still_there(recall(find_flow(line, tag, now, FRAGMENT_TICKS), tag, now), -1, number);
}

#if WITH_FULLNAT

/* A second record of a datagram: the place of its connection, in a way that no packet goes. */
#define PLACE 16

static __always_inline void remember_place(const struct packet *packet, enum way way, __u32 place)
{
	__u32 now = ticks_now();

	remember_fragment_as(fragment_tag(packet, way + PLACE, packet->fragment), place, now);
	/* Towards a client the addresses of a datagram do not tell whose it is, since the gateway's is everyone's. */
	if (way == WAY_TO_VIP)
		remember_fragment_as(fragment_tag(packet, way + PLACE, ANY_DATAGRAM), place, now);
}

static __always_inline __s64 recall_place_as(__u64 tag)
{
	__u32 now = ticks_now();
	struct flow_line *line = fragment_line(tag);

	return line ? recall(find_flow(line, tag, now, FRAGMENT_TICKS), tag, now) : -1;
}

/* The place of the connection that a later fragment belongs to, or -1. */
static __always_inline __s64 recall_place(const struct packet *packet, enum way way)
{
	__s64 place = recall_place_as(fragment_tag(packet, way + PLACE, packet->fragment));

	if (place < 0 && way == WAY_TO_VIP)
		place = recall_place_as(fragment_tag(packet, way + PLACE, ANY_DATAGRAM));
	return place;
}

#endif
