/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Whose packet it is: the index. */

/*
 * l4lb/plan/index.py computes the same; the constants are the odd ones of splitmix64 (Steele et al., OOPSLA'14).
 * It spreads what an operator configured, so it needs no key.
 */
static __always_inline __u64 index_hash(const struct endpoint *key, enum way way)
{
	__u64 hash = key->hi * 0x9e3779b97f4a7c15ULL;

	hash ^= hash >> 32;
	hash = (hash ^ key->lo) * 0xbf58476d1ce4e5b9ULL;
	hash ^= hash >> 32;
	hash = (hash ^ ((__u64)key->port << 16 | key->protocol << 8 | way)) * 0x94d049bb133111ebULL;
	return hash ^ hash >> 32;
}

/* Whether there may be an entry for a hash. */
static __always_inline int may_be_indexed(__u64 hash)
{
	__u32 number = hash >> 54;
	__u64 *word = service_filter.lookup(&number);

	return word && *word >> (hash >> 48 & 63) & 1;
}

/* The VIP's or backend's number for an endpoint, or -1. The caller compares the record's endpoint with its own. */
static __always_inline int find(const struct endpoint *key, enum way way)
{
	__u64 hash = index_hash(key, way), want = (hash | 1ULL << 63) & ~((1ULL << INDEX_REF_BITS) - 1);
	int probe, i;

	if (!may_be_indexed(hash))
		return -1;
	for (probe = 0; probe < INDEX_PROBES; probe++) {
		__u32 number = (hash + probe) & (INDEX_LINES - 1);
		struct index_line *line = service_index.lookup(&number);

		if (!line)
			return -1;
#pragma unroll
		for (i = 0; i < ENTRIES_PER_LINE; i++) {
			__u64 difference = line->entry[i] - want;

			if (difference < 1ULL << INDEX_REF_BITS)
				return difference;
		}
		if (!line->entry[ENTRIES_PER_LINE - 1])
			return -1;
	}
	return -1;
}

static __always_inline int same(const struct endpoint *key, __u64 hi, __u64 lo, __be16 port, __u8 protocol)
{
	return key->hi == hi && key->lo == lo && key->port == port && key->protocol == protocol;
}

/* The record of an address that has VIPs. */
static __always_inline struct address *find_address(const struct endpoint *to)
{
	struct endpoint key = {.hi = to->hi, .lo = to->lo};
	__u32 number = find(&key, WAY_TO_ADDRESS);
	struct address *address = addresses.lookup(&number);

	return address && same(&key, address->endpoint.hi, address->endpoint.lo, 0, 0) ? address : NULL;
}

#if WITH_RANGES
#define MAX_RANGE_STEPS 17 /* to find one of 65,536 ranges, which is as many as ports can be cut into */

/* The narrowest VIP of several ports that takes the one of `to`, or -1. */
static __always_inline int find_in_ranges(const struct endpoint *to)
{
	const struct address *address = find_address(to);
	__u32 below, above, port = bpf_ntohs(to->port), found = NO_VIP;
	__u64 ranges;
	int i;

	if (!address)
		return -1;
	ranges = *(volatile const __u64 *)(to->protocol == IPPROTO_TCP ? &address->tcp_ranges : &address->udp_ranges);
	below = 0;
	above = ranges >> 32; /* what is sought is the last range that begins at the port or before */
#pragma unroll
	for (i = 0; i < MAX_RANGE_STEPS; i++) {
		__u32 middle = (below + above) / 2, number = (__u32)ranges + middle / RANGES_PER_LINE, range;
		struct range_line *line;

		if (below >= above)
			break;
		line = port_ranges.lookup(&number);
		if (!line)
			return -1;
		range = line->range[middle % RANGES_PER_LINE];
		if (range >> 16 <= port) {
			found = range & 0xffff;
			below = middle + 1;
		} else {
			above = middle;
		}
	}
	return found == NO_VIP ? -1 : found;
}
#endif

static __always_inline struct vip *find_vip(const struct endpoint *to, __u32 *number)
{
	int found = find(to, WAY_TO_VIP);
	struct vip *vip;

	if (found >= 0) {
		*number = found;
		vip = vips.lookup(number);
		if (vip && same(to, vip->endpoint.hi, vip->endpoint.lo, vip->endpoint.port, vip->endpoint.protocol))
			return vip;
	}
#if WITH_RANGES
	found = find_in_ranges(to);
	if (found >= 0) {
		*number = found;
		return vips.lookup(number);
	}
#endif
	return NULL;
}

#if WITH_ANSWERS
/* The backend that a packet comes from, if its answers come back through here. */
static __always_inline struct backend *find_answering_backend(const struct endpoint *from, __u32 *number)
{
	struct endpoint key = *from;
	struct backend *backend;
	int found = find(&key, WAY_FROM_BACKEND);

#if WITH_RANGES
	if (found < 0) {
		key.port = 0; /* one that keeps the port that the client chose */
		found = find(&key, WAY_FROM_BACKEND);
	}
#endif
	if (found < 0)
		return NULL;
	*number = found;
	backend = backends.lookup(number);
	return backend && same(&key, backend->hi, backend->lo, backend->port, backend->protocol) ? backend : NULL;
}
#endif
