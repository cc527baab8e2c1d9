/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which backend a flow gets: the VIP's table, and where that has changed lately, what was before. */

/*
 * Keyed by FLOW_KEY and the multipliers (odd, secret if the seed is), so that an outsider cannot aim at a slot: its upper
 * half is. l4lb/balance/flowhash.py computes the same.
 */
static __always_inline __u64 flow_hash(const struct endpoint *client, __be16 service_port)
{
	__u64 hash = (client->hi ^ FLOW_KEY) * FLOW_MUL0;

	hash ^= hash >> 32;
	hash = (hash ^ client->lo) * FLOW_MUL1;
	hash ^= hash >> 32;
	hash = (hash ^ ((__u64)bpf_ntohs(client->port) << 16 | bpf_ntohs(service_port))) * FLOW_MUL2;
	hash ^= hash >> 32;
	return hash * FLOW_MUL0;
}

/* The slot that a hash falls into, of a table of so many. */
static __always_inline slot_t *slot_at(__u32 first_line, __u32 size, __u64 hash)
{
	__u32 slot = (hash >> 32) * size >> 32, number = first_line + slot / SLOTS_PER_LINE;
	struct slot_line *line = slots.lookup(&number);

	return line ? &line->slot[slot % SLOTS_PER_LINE] : NULL;
}

/*
 * In an unsettled slot: a TCP flow that begins goes to the current backend and is recorded. What has a record
 * follows it. The rest is older than the change and goes to the previous backend; so does a UDP flow, which has no
 * beginning to be seen, until the learning time is over.
 */
static __always_inline int choose_unsettled(const struct packet *packet, const struct vip *vip, __u32 vip_number,
					    __u64 table, __u64 slot_hash, __u32 current, __u32 *number)
{
	__u64 tag = flow_tag(packet->hash, vip_number);
	__u32 first_line = table, now = ticks_now(), idle = *(volatile const __u64 *)&vip->idle;
	struct flow_line *line = flow_line(tag);
	struct table_header *header = (struct table_header *)slots.lookup(&first_line);
	slot_t *previous = NULL;
	struct backend *backend;
	__u32 old = current;

	if (!line || !header)
		return DROP_INCONSISTENT;
	if (header->previous_slots)
		previous = slot_at(header->previous_line, header->previous_slots, slot_hash);
	if (previous)
		old = *previous & ~SLOT_FLAG;
	if (!begins(packet)) {
		if (still_there(recall(find_flow(line, tag, now, idle), tag, now), vip_number, number))
			goto chosen;
		if (packet->protocol == IPPROTO_TCP || packet->kind == ICMP_ERROR) {
			*number = old;
			goto chosen;
		}
	}
	*number = packet->protocol == IPPROTO_UDP && (__s32)(header->learning_until - now) > 0 ? old : current;
	backend = *number == NO_BACKEND ? NULL : backends.lookup(number);
	if (!backend)
		return DROP_NO_BACKEND;
	remember(line, tag, recorded(backend, *number), FLOW_UNCOUNTED, now, idle);
chosen:
	if (*number == NO_BACKEND)
		return DROP_NO_BACKEND;
	if (*number != current && previous && !(*previous & SLOT_FLAG))
		*previous |= SLOT_FLAG;
	return FORWARDED;
}
