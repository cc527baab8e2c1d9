/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The way back to a client, as the kernel's routing table has it. Asking it costs more than all the rest of the
 * program, so each CPU remembers its answers for a short while: long enough to matter, short enough that a change of
 * routes is followed even when no control plane is there to announce it.
 */

#define ROUTE_LIFE_JIFFIES 100 /* 0.1 to 1 s, as CONFIG_HZ has it */
#define PROTOCOL_EXPERIMENTAL 253 /* RFC 3692: no host listens to it */

#if WITH_ANSWERS

/* A way to a client. */
struct way_back {
	__u64 next_hop; /* as in struct backend */
	__u32 mtu; /* the route's, 0: the interface's */
};

/* Asks about the way from one address to another, or returns the reason why there is none. */
static __always_inline int ask_kernel(struct xdp_md *ctx, __u32 ingress, const struct packet *packet,
				      const struct endpoint *from, const struct endpoint *to, struct way_back *way)
{
	struct bpf_fib_lookup query = {};

	query.ifindex = ingress;
	query.l4_protocol = packet->protocol;
	query.sport = packet->from.port;
	query.dport = to->port;
	query.tot_len = 1; /* makes the kernel tell the route's MTU, since 5.12 */
	if (packet->v6) {
		query.family = AF_INET6;
		__builtin_memcpy(query.ipv6_src, &from->hi, 16);
		__builtin_memcpy(query.ipv6_dst, &to->hi, 16);
	} else {
		query.family = AF_INET;
		query.tos = ((struct iphdr *)packet->ip)->tos;
		query.ipv4_src = from->lo >> 32;
		query.ipv4_dst = to->lo >> 32;
	}
	switch (bpf_fib_lookup(ctx, &query, sizeof(query), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return PASS_RESOLVE_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return PASS_LOCAL;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return DROP_FORWARDING_OFF;
	default:
		return DROP_NO_ROUTE;
	}
	if (query.ifindex >= MAX_INTERFACES)
		return DROP_NO_EGRESS;
	__builtin_memcpy(&way->next_hop, query.dmac, ETH_ALEN);
	way->next_hop = (way->next_hop & MAC_MASK) | (__u64)query.ifindex << 48;
	way->mtu = query.tot_len == 1 ? 0 : query.tot_len;
	return FORWARDED;
}

static __always_inline int route_to_client(struct xdp_md *ctx, __u32 ingress, const struct packet *packet,
					   const struct endpoint *from, const struct endpoint *to, struct way_back *way)
{
	__u32 zero = 0, number = ((to->hi ^ to->lo) * 0x9e3779b97f4a7c15ULL) >> 32 & (ROUTE_LINES - 1);
	__u32 now = bpf_jiffies64();
	struct control *current = control.lookup(&zero);
	struct route *route = routes.lookup(&number);
	__u16 generation;
	int reason;

	if (!current || !route)
		return DROP_INCONSISTENT;
	generation = *(volatile __u32 *)&current->routing_generation;
	if (route->lo == to->lo && route->hi == to->hi && route->generation == generation &&
	    (__s32)(route->expires - now) > 0) {
		way->next_hop = route->next_hop;
		way->mtu = route->mtu;
		return FORWARDED;
	}
	reason = ask_kernel(ctx, ingress, packet, from, to, way);
	if (reason == FORWARDED) {
		route->hi = to->hi;
		route->lo = to->lo;
		route->next_hop = way->next_hop;
		route->mtu = way->mtu;
		route->generation = generation;
		route->expires = now + ROUTE_LIFE_JIFFIES;
	}
	return reason;
}

/*
 * Makes the kernel resolve the next hop: the packet goes on to it as a bare IP header of a protocol that no host answers
 * with more than an ICMP error, which the backend ignores (IPv6: with nothing after it, which no host answers at all).
 * Given the packet as it came, the kernel would forward it under the backend's own address, and the client would reset
 * the connection. Nothing outside the kernel has to be there for this to work.
 */
static __always_inline void empty(struct packet *packet, const struct endpoint *to)
{
	if (packet->v6) {
		struct ipv6hdr *ip = packet->ip;
		__u64 *address = packet->ip + offsetof(struct ipv6hdr, daddr);

		ip->payload_len = 0;
		ip->nexthdr = IPPROTO_NONE;
		address[0] = to->hi;
		address[1] = to->lo;
	} else {
		struct iphdr *ip = packet->ip;
		__u16 old_length = ip->tot_len, length = bpf_htons(ip->ihl * 4);
		__u16 *ttl_and_protocol = (void *)&ip->ttl, old = *ttl_and_protocol;
		__u32 difference;

		ip->tot_len = length;
		ip->protocol = PROTOCOL_EXPERIMENTAL;
		difference = (__u16)~old_length + length + (__u16)~old + *ttl_and_protocol;
		difference += (__u16)~address_sum(0, mapped(ip->daddr)) + address_sum(0, to->lo);
		ip->daddr = to->lo >> 32;
		ip->check = update_checksum(ip->check, difference);
	}
}

#endif
