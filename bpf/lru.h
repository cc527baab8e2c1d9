/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* For comparison only: what others do, a table of all flows in an LRU map of the kernel, looked up for each packet. */

#if WITH_LRU

struct lru_key {
	struct endpoint from;
	__u32 vip;
	__u32 service_port;
};

struct lru_value {
	__u32 backend;
};

BPF_TABLE("lru_hash", struct lru_key, struct lru_value, lru, LRU_ENTRIES);

static __always_inline int recall_from_lru(const struct packet *packet, __u32 vip, __u32 *number)
{
	struct lru_key key = {.from = packet->from, .vip = vip, .service_port = packet->to.port};
	struct lru_value *value = lru.lookup(&key);

	if (!value)
		return 0;
	*number = value->backend;
	return 1;
}

static __always_inline void remember_in_lru(const struct packet *packet, __u32 vip, __u32 number)
{
	struct lru_key key = {.from = packet->from, .vip = vip, .service_port = packet->to.port};
	struct lru_value value = {.backend = number};

	lru.update(&key, &value);
}

#endif
