/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Outer headers: IP in IP (RFC 2003, RFC 2473, RFC 4213) and generic UDP encapsulation in its short form (GUE variant 1,
 * draft-ietf-intarea-gue: an IP header follows the UDP header at once).
 *
 * A flow has one outer source address, and one UDP source port or IPv6 flow label, taken from its hash, so that receivers
 * spread flows over their queues and equal-cost paths. DSCP and ECN are those of the inner header (RFC 6040, normal mode).
 */

#if WITH_IPIP || WITH_GUE

#define OUTER_TTL 64
#define IPV6_WORD 0x60000000 /* version 6, in host order */

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

#if WITH_IPV6 && WITH_GUE
/*
 * The sum over the inner packet, without reading it: its transport checksum makes transport header and payload add up to
 * the complement of their pseudo-header. (Local checksum offload, as Linux's documentation of segmentation has it.)
 * Answers 0 where that does not hold: fragments, extension headers, UDP without a checksum or with another length.
 */
static __always_inline __u32 inner_sum(const struct packet *packet)
{
	const struct udphdr *udp = packet->transport;
	__be16 length = bpf_htons(ip_length(packet) - packet->header);

	if (packet->kind != PLAIN)
		return 0;
	if (packet->protocol == IPPROTO_UDP && ((void *)(udp + 1) > packet->end || !udp->check || udp->len != length))
		return 0;
	if (packet->v6) {
		const __u16 *word = packet->ip;

		if (packet->header != sizeof(struct ipv6hdr))
			return 0;
		/* Addresses and length are in the header and in the complement, and cancel out. */
		return word[0] + word[1] + word[3] + (__u16)~bpf_htons(packet->protocol);
	}
	/* A header with its checksum adds up to nothing. */
	return (__u16)~address_sum(0, packet->from.lo) + (__u16)~address_sum(0, packet->to.lo) +
	       (__u16)~bpf_htons(packet->protocol) + (__u16)~length;
}
#endif

/* Puts the packet into another one, addressed to the backend. Nothing in the packet may be used after it. */
static __always_inline int encapsulate(struct xdp_md *ctx, struct packet *packet, const struct way_out *out,
				       const struct backend *backend)
{
	int gue = WITH_GUE && (!WITH_IPIP || backend->mode == MODE_GUE);
	int v6 = WITH_IPV6 && (backend->flags & BACKEND_IPV6);
	__u64 source = backend->source_lo ^ (__u64)((__u32)packet->hash & backend->source_mask) << 32;
	__u32 length = ip_length(packet), udp_sum = 0;
	__u8 class, inner = packet->v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	struct udphdr *udp;
	void *place, *end;

	decrement_ttl(packet);
	class = packet->v6 ? bpf_ntohs(*(__be16 *)packet->ip) >> 4 & 0xff : ((struct iphdr *)packet->ip)->tos;
#if WITH_IPV6 && WITH_GUE
	if (v6 && gue)
		udp_sum = inner_sum(packet);
#endif
	place = reframe(ctx, packet, out,
			(v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + (gue ? sizeof(*udp) : 0),
			v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP));
	if (!place)
		return DROP_NO_HEADROOM;
	end = (void *)(long)ctx->data_end;
	if (gue)
		length += sizeof(*udp);
	if (v6) {
		struct ipv6hdr *ip = place;
		__u64 *address = place + offsetof(struct ipv6hdr, saddr);

		if (place + sizeof(*ip) + sizeof(*udp) > end)
			return DROP_NO_HEADROOM;
		*(__be32 *)place = bpf_htonl(IPV6_WORD | (__u32) class << 20 | (packet->hash >> 44));
		ip->payload_len = bpf_htons(length);
		ip->nexthdr = gue ? IPPROTO_UDP : inner;
		ip->hop_limit = OUTER_TTL;
		address[0] = backend->source_hi;
		address[1] = source;
		address[2] = backend->hi;
		address[3] = backend->lo;
		udp = (void *)(ip + 1);
	} else {
		struct iphdr *ip = place;
		__be16 total = bpf_htons(length + sizeof(*ip));
		__u64 sum = (__u64)backend->outer_sum + total + ((__u16) class << 8) + (source >> 32) +
			    (gue ? 0 : (__u16)inner << 8);

		if (place + sizeof(*ip) + sizeof(*udp) > end)
			return DROP_NO_HEADROOM;
		*(__u32 *)place = (__u32)total << 16 | (__u32) class << 8 | 0x45;
		*(__u32 *)(place + 4) = bpf_htons(0x4000)
					<< 16; /* not to be fragmented, so it needs no number (RFC 6864) */
		ip->ttl = OUTER_TTL;
		ip->protocol = gue ? IPPROTO_UDP : inner;
		ip->check = ~fold(sum);
		ip->saddr = source >> 32;
		ip->daddr = backend->lo >> 32;
		udp = (void *)(ip + 1);
	}
	if (gue) {
		__be16 port = bpf_htons(0xc000 | (packet->hash >> 48 & 0x3fff));

		udp->source = port;
		udp->dest = backend->tunnel_port;
		udp->len = bpf_htons(length);
		udp->check = 0;
		if (udp_sum) {
			__u64 sum = udp_sum;

			/* UDP's length is in its header and in the pseudo-header. */
			sum += address_sum(backend->source_hi, source) + address_sum(backend->hi, backend->lo) + port +
			       backend->tunnel_port + bpf_htons(IPPROTO_UDP) + 2 * (__u64)udp->len;
			udp->check = ~fold(sum);
			if (!udp->check)
				udp->check = 0xffff;
		}
	}
	return FORWARDED;
}

#endif
