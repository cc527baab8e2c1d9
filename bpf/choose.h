/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The VIP's scheduler, applied. */

/* Sets the number and the record of the flow's backend. */
static __always_inline int choose(struct packet *packet, const struct vip *vip, __u32 vip_number, __u32 *number,
				  struct backend **backend)
{
	__u64 table = *(volatile const __u64 *)&vip->table; /* read once: it changes under traffic */
	__u64 slot_hash;
	slot_t *slot, value;
	int reason;

	packet->hash = slot_hash = flow_hash(&packet->from, packet->to.port);
	if (!(table >> 32))
		return DROP_NO_BACKEND;
#if WITH_TRACKING
	if (vip->scheduler >= SCHEDULER_ROUND_ROBIN) {
		int found = choose_tracked(packet, vip, vip_number, table, number);

		if (found < 0)
			return DROP_NO_BACKEND;
		if (found)
			goto chosen;
	}
#endif
#if WITH_SOURCE_HASH
	if (vip->scheduler == SCHEDULER_SOURCE_HASH) {
		struct endpoint network = {.hi = packet->from.hi & vip->mask_hi, .lo = packet->from.lo & vip->mask_lo};

		slot_hash = flow_hash(&network, 0);
	}
#endif
#if WITH_LRU
	if (recall_from_lru(packet, vip_number, number))
		goto chosen;
#endif
	slot = slot_at((__u32)table + 1, table >> 32, slot_hash);
	if (!slot)
		return DROP_INCONSISTENT;
	value = *(volatile slot_t *)slot;
	*number = value & ~SLOT_FLAG;
	if (value & SLOT_FLAG) {
		reason = choose_unsettled(packet, vip, vip_number, table, slot_hash, value & ~SLOT_FLAG, number);
		if (reason)
			return reason;
	} else if (*number == NO_BACKEND) {
		return DROP_NO_BACKEND;
	}
#if WITH_LRU
	remember_in_lru(packet, vip_number, *number);
#endif
#if WITH_TRACKING || WITH_LRU
chosen:
#endif
	*backend = backends.lookup(number);
	return *backend ? FORWARDED : DROP_INCONSISTENT;
}
