/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The way back to a client, as the kernel's routing table has it. Asking it costs more than all the rest of the
 * program, so each CPU remembers its answers for a short while: long enough to matter, short enough that a change of
 * routes is followed even when no control plane is there to announce it.
 */

#define ROUTE_LIFE_JIFFIES 100 /* 0.1 to 1 s, as CONFIG_HZ has it */
#define PROTOCOL_EXPERIMENTAL 253 /* RFC 3692: no host listens to it */

/*
 * Sets *next_hop for a packet to `to` from the VIP, or returns the reason why there is none.
 */
static __always_inline int ask_kernel(struct xdp_md *ctx, const struct packet *packet, __be32 from, __u64 *next_hop)
{
	struct bpf_fib_lookup query = {};

	query.family = AF_INET;
	query.tos = packet->ip->tos;
	query.l4_protocol = packet->protocol;
	query.sport = packet->source_port;
	query.dport = packet->dest_port;
	query.tot_len = bpf_ntohs(packet->ip->tot_len);
	query.ifindex = ctx->ingress_ifindex;
	query.ipv4_src = from;
	query.ipv4_dst = packet->ip->daddr;
	switch (bpf_fib_lookup(ctx, &query, sizeof(query), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return PASS_RESOLVE_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return PASS_LOCAL;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return DROP_TOO_BIG;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return DROP_FORWARDING_OFF;
	default:
		return DROP_NO_ROUTE;
	}
	if (query.ifindex >= MAX_INTERFACES)
		return DROP_NO_EGRESS;
	__builtin_memcpy(next_hop, query.dmac, ETH_ALEN);
	*next_hop = (*next_hop & MAC_MASK) | (__u64)query.ifindex << 48;
	return FORWARDED;
}

static __always_inline int route_to_client(struct xdp_md *ctx, const struct packet *packet, __be32 from,
					   __u64 *next_hop)
{
	__u64 lo = mapped(packet->ip->daddr);
	__u32 zero = 0, number = (lo * 0x9e3779b97f4a7c15ULL) >> 32 & (ROUTE_LINES - 1);
	__u32 now = bpf_jiffies64();
	struct control *current = control.lookup(&zero);
	struct route *route = routes.lookup(&number);
	__u32 generation;
	int reason;

	if (!current || !route)
		return DROP_INCONSISTENT;
	generation = *(volatile __u32 *)&current->routing_generation;
	if (route->lo == lo && route->hi == 0 && route->generation == generation && (__s32)(route->expires - now) > 0) {
		*next_hop = route->next_hop;
		return FORWARDED;
	}
	reason = ask_kernel(ctx, packet, from, next_hop);
	if (reason == FORWARDED) {
		route->hi = 0;
		route->lo = lo;
		route->next_hop = *next_hop;
		route->generation = generation;
		route->expires = now + ROUTE_LIFE_JIFFIES;
	}
	return reason;
}

/*
 * Makes the kernel resolve the next hop: the packet goes on to it as a bare IPv4 header of a protocol that no host
 * answers with more than an ICMP error, which the backend ignores. Given the packet as it came, the kernel would
 * forward it under the backend's own address, and the client would reset the connection. Nothing outside the kernel has
 * to be there for this to work.
 */
static __always_inline void empty(struct packet *packet)
{
	struct iphdr *ip = packet->ip;
	__u16 old_length = ip->tot_len, length = bpf_htons(ip->ihl * 4);
	__u16 *ttl_and_protocol = (void *)&ip->ttl, old = *ttl_and_protocol;

	ip->tot_len = length;
	ip->protocol = PROTOCOL_EXPERIMENTAL;
	ip->check = update_checksum(ip->check, (__u16)~old_length + length + (__u16)~old + *ttl_and_protocol);
}
