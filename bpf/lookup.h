/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Whose packet it is: the index. */

#define MAPPED_IPV4 0xffff0000ULL /* bytes 8..11 of ::ffff:a.b.c.d, in a little-endian word */

/* An IPv4 address as the low word of a mapped IPv6 address; the high word is 0. */
static __always_inline __u64 mapped(__be32 address)
{
	return (__u64)address << 32 | MAPPED_IPV4;
}

/*
 * l4lb/datapath/index.py computes the same; the constants are the odd ones of splitmix64 (Steele et al., OOPSLA'14).
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

static __always_inline int same(const struct endpoint *a, const struct endpoint *b)
{
	return a->hi == b->hi && a->lo == b->lo && a->port == b->port && a->protocol == b->protocol;
}

static __always_inline struct vip *find_vip(const struct endpoint *key, __u32 *number)
{
	int found = find(key, WAY_TO_VIP);
	struct vip *vip;

	if (found < 0)
		return NULL;
	*number = found;
	vip = vips.lookup(number);
	return vip && same(&vip->endpoint, key) ? vip : NULL;
}

/* The backend that a packet comes from, if it serves a VIP by nat. */
static __always_inline struct backend *find_answering_backend(const struct endpoint *key, __u32 *number)
{
	int found = find(key, WAY_FROM_BACKEND);
	struct backend *backend;

	if (found < 0)
		return NULL;
	*number = found;
	backend = backends.lookup(number);
	return backend && same(&backend->endpoint, key) ? backend : NULL;
}
