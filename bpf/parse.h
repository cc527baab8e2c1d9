/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a frame to the flow that it is about. All bounds of the headers are checked here, or checked again where they are
 * used, as the verifier forgets what it knew of a pointer that was put away.
 */

#define IP_OFFSET 0x1fff
#define IP_MF 0x2000
#define IP_DF 0x4000
#define IP6_OFFSET 0xfff8
#define IP6_MF 1

/* The longest chain of IPv6 extension headers that is followed. */
#define MAX_EXTENSIONS 6

/* RFC 792 and RFC 4443. The UAPI header of ICMP draws in the C library. */
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_PORT_UNREACHABLE 3 /* codes of ICMP_UNREACHABLE */
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PORT_UNREACHABLE 4 /* a code of ICMPV6_UNREACHABLE */
#define ICMPV6_TOO_BIG 2
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 rest;
};

struct vlan {
	__be16 tci;
	__be16 type; /* of what follows */
};

#define RARE -1 /* in place of a reason: go on in the program for rare packets */

enum kind {
	PLAIN,
	FIRST_FRAGMENT,
	LATER_FRAGMENT, /* no ports: `from` and `to` are addresses alone */
	ICMP_ERROR = 4, /* about a packet that went the other way: its source is where the error goes to */
	ECHO_REQUEST,
};

struct packet {
	void *eth;
	void *ip;
	void *transport; /* what follows IP header, options and extension headers */
	void *inner; /* of an ICMP error: the IP header of the packet that it is about */
	void *inner_transport;
	void *end;
	__u64 length; /* of the frame, bytes */
	__u64 hash; /* of the flow, once it is known */
	struct endpoint from; /* the flow's ends, as seen by a packet that goes the way that this one goes */
	struct endpoint to;
	__u32 header; /* bytes before `transport` */
	__u32 fragment; /* what the fragments of one datagram have in common beside their addresses */
	__u8 kind;
	__u8 v6;
	__u8 tag_bytes; /* of VLAN tags */
	__u8 protocol; /* of the flow */
};

#define MAPPED_IPV4 0xffff0000ULL /* bytes 8..11 of ::ffff:a.b.c.d, in a little-endian word */

/* An IPv4 address as the low word of a mapped IPv6 address; the high word is 0. */
static __always_inline __u64 mapped(__be32 address)
{
	return (__u64)address << 32 | MAPPED_IPV4;
}

/* Whether VIPs are of such a protocol. */
static __always_inline int is_flow(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline int is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * A number that the verifier knows nothing of any more. It follows each value that a rarely taken way may leave, through all
 * that comes after; what came by many ways is told to it as one.
 */
static __always_inline __u64 unknown(__u64 value)
{
	__u32 zero = 0;
	volatile __u64 *place = scratch.lookup(&zero);

	if (!place)
		return 0;
	*place = value;
	return *place;
}

#define MAX_HEADER 0x3fff /* more than MAX_EXTENSIONS of the longest */

struct extension {
	__u8 next;
	__u8 length;
	__be16 offset; /* of a fragment header */
	__be32 id;
};

/*
 * Follows IPv6 extension headers. Sets the protocol behind them and where it begins; of a fragment, its kind and number.
 */
static __always_inline int walk_extensions(void *ip, void *end, __u8 *protocol, __u32 *header, __u8 *kind,
					   __u32 *fragment)
{
	__u8 next = ((struct ipv6hdr *)ip)->nexthdr;
	__u32 at = sizeof(struct ipv6hdr);
	int i;

#pragma unroll
	for (i = 0; i < MAX_EXTENSIONS; i++) {
		struct extension *extension = ip + at;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if ((void *)(extension + 1) > end)
			return PASS_MALFORMED;
		if (next == IPPROTO_ROUTING && (extension->offset & bpf_htons(0xff)))
			return PASS_NOT_VIP; /* segments left: this is not its destination */
		if (next == IPPROTO_FRAGMENT) {
			*fragment = extension->id;
			if (extension->offset & bpf_htons(IP6_OFFSET)) {
				*kind = LATER_FRAGMENT;
				*protocol = extension->next;
				*header = at;
				return FORWARDED;
			}
			if (extension->offset & bpf_htons(IP6_MF))
				*kind = FIRST_FRAGMENT;
			at += sizeof(struct extension);
		} else {
			at += (extension->length + 1) * 8;
		}
		next = extension->next;
	}
	*protocol = next;
	*header = at;
	return FORWARDED;
}

/* What is known of a packet of any kind is made unknown to the verifier, so that it follows one instead of many. */
static __always_inline void blur(struct packet *packet)
{
	__u64 known = unknown((__u64)packet->kind << 48 | (__u64)packet->protocol << 32 | packet->header);

	packet->kind = known >> 48 & (FIRST_FRAGMENT | LATER_FRAGMENT);
	packet->protocol = known >> 32;
	packet->header = known & MAX_HEADER;
}

static __always_inline int parse_ipv4(struct packet *packet, int rare)
{
	struct iphdr *ip = packet->ip;

	if ((void *)(ip + 1) > packet->end || ip->version != 4 || ip->ihl < 5)
		return PASS_MALFORMED;
	packet->from.lo = mapped(ip->saddr);
	packet->to.lo = mapped(ip->daddr);
	packet->protocol = ip->protocol;
	packet->header = ip->ihl * 4;
	if (!rare)
		return (ip->frag_off & bpf_htons(IP_OFFSET | IP_MF)) || !is_flow(ip->protocol) ? RARE : FORWARDED;
	if (ip->frag_off & bpf_htons(IP_OFFSET | IP_MF)) {
		packet->kind = ip->frag_off & bpf_htons(IP_OFFSET) ? LATER_FRAGMENT : FIRST_FRAGMENT;
		packet->fragment = ip->protocol << 16 | ip->id;
	}
	return FORWARDED;
}

static __always_inline int parse_ipv6(struct packet *packet, int rare)
{
	struct ipv6hdr *ip = packet->ip;
	__u64 *address = packet->ip + offsetof(struct ipv6hdr, saddr);

	if ((void *)(ip + 1) > packet->end || ip->version != 6)
		return PASS_MALFORMED;
	packet->v6 = 1;
	packet->from.hi = address[0];
	packet->from.lo = address[1];
	packet->to.hi = address[2];
	packet->to.lo = address[3];
	packet->protocol = ip->nexthdr;
	packet->header = sizeof(*ip);
	if (is_flow(ip->nexthdr))
		return FORWARDED;
	if (!rare)
		return RARE;
	return walk_extensions(ip, packet->end, &packet->protocol, &packet->header, &packet->kind, &packet->fragment);
}

/*
 * An error is about the flow of the packet that it quotes, and goes to where that came from, or else is not believed. What else there is of ICMP is
 * not ours, but for a ping.
 */
static __always_inline int parse_icmp(struct packet *packet)
{
	struct icmp *icmp = packet->transport;
	__u8 kind = PLAIN, protocol = 0;
	__u32 header = 0, fragment;
	__u16 *ports;

	if ((void *)(icmp + 1) > packet->end || packet->kind != PLAIN)
		return PASS_NOT_TCP_UDP;
	packet->inner = icmp + 1;
	if (packet->v6) {
		struct ipv6hdr *ip = packet->inner;
		__u64 *address = packet->inner + offsetof(struct ipv6hdr, saddr);

		if (icmp->type == ICMPV6_ECHO_REQUEST)
			packet->kind = ECHO_REQUEST;
		if (packet->kind == ECHO_REQUEST)
			return FORWARDED;
		if (icmp->type < ICMPV6_UNREACHABLE || icmp->type > ICMPV6_PARAMETER_PROBLEM ||
		    (void *)(ip + 1) > packet->end || ip->version != 6 ||
		    walk_extensions(ip, packet->end, &protocol, &header, &kind, &fragment))
			return PASS_NOT_TCP_UDP;
		if (packet->to.hi != address[0] || packet->to.lo != address[1])
			return PASS_NOT_TCP_UDP;
		packet->from.hi = address[2];
		packet->from.lo = address[3];
	} else {
		struct iphdr *ip = packet->inner;

		if (icmp->type == ICMP_ECHO_REQUEST)
			packet->kind = ECHO_REQUEST;
		if (packet->kind == ECHO_REQUEST)
			return FORWARDED;
		if ((icmp->type != ICMP_UNREACHABLE && icmp->type != ICMP_TIME_EXCEEDED &&
		     icmp->type != ICMP_PARAMETER_PROBLEM) ||
		    (void *)(ip + 1) > packet->end || ip->version != 4 || ip->ihl < 5)
			return PASS_NOT_TCP_UDP;
		if (packet->to.lo != mapped(ip->saddr))
			return PASS_NOT_TCP_UDP;
		packet->from.lo = mapped(ip->daddr);
		protocol = ip->protocol;
		header = ip->ihl * 4;
		if (ip->frag_off & bpf_htons(IP_OFFSET))
			kind = LATER_FRAGMENT;
	}
	if (kind == LATER_FRAGMENT || !is_flow(protocol))
		return PASS_NOT_TCP_UDP;
	header = unknown(header) & MAX_HEADER;
	packet->inner_transport = packet->inner + header;
	ports = packet->inner_transport;
	if ((void *)(ports + 4) > packet->end) /* RFC 792: at least 8 bytes of it are quoted */
		return PASS_NOT_TCP_UDP;
	packet->kind = ICMP_ERROR;
	packet->protocol = protocol;
	packet->to.port = ports[0];
	packet->from.port = ports[1];
	return FORWARDED;
}

/*
 * Fills `packet`. `rare` is known when this is compiled: the IP version that is handled, or 0 for both, when the answer is RARE
 * for all that is no plain TCP or UDP packet.
 */
static __always_inline int parse(struct xdp_md *ctx, struct packet *packet, int rare)
{
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	__be16 type, *ports;
	int reason;

	packet->eth = data;
	packet->end = (void *)(long)ctx->data_end;
	packet->length = packet->end - data;
	if ((void *)(eth + 1) > packet->end)
		return PASS_MALFORMED;
	type = eth->h_proto;
	packet->ip = data + sizeof(*eth);
#if WITH_VLAN
	int i;

#pragma unroll
	for (i = 0; i < 2; i++) {
		struct vlan *tag = data + sizeof(*eth) + packet->tag_bytes;

		if (!is_tag(type))
			break;
		if ((void *)(tag + 1) > packet->end)
			return PASS_MALFORMED;
		type = tag->type;
		packet->tag_bytes += sizeof(*tag);
	}
	if (rare || packet->tag_bytes)
		packet->tag_bytes = unknown(packet->tag_bytes) & 12;
	packet->ip = data + sizeof(*eth) + packet->tag_bytes;
#endif
	if (rare != 6 && type == bpf_htons(ETH_P_IP))
		reason = parse_ipv4(packet, rare);
	else if (rare != 4 && type == bpf_htons(ETH_P_IPV6))
		reason = WITH_IPV6 ? parse_ipv6(packet, rare) : PASS_NOT_VIP;
	else
		reason = PASS_NOT_IP;
	if (reason)
		return reason;
	if (rare)
		blur(packet);
	if (packet->kind == LATER_FRAGMENT)
		return FORWARDED;
	packet->transport = packet->ip + packet->header;
	if (rare && !is_flow(packet->protocol)) {
		if (packet->protocol != (packet->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
			return PASS_NOT_TCP_UDP;
		reason = parse_icmp(packet);
	} else {
		ports = packet->transport;
		if ((void *)(ports + 2) > packet->end)
			return PASS_MALFORMED;
		packet->from.port = ports[0];
		packet->to.port = ports[1];
	}
	packet->from.protocol = packet->to.protocol = packet->protocol;
	return reason;
}

/* Whether the packet has its TCP header, at least as far as its flags. */
static __always_inline struct tcphdr *tcp_of(const struct packet *packet)
{
	struct tcphdr *tcp = packet->transport;

	if (packet->protocol != IPPROTO_TCP || packet->kind > FIRST_FRAGMENT || (void *)(tcp + 1) > packet->end)
		return NULL;
	return tcp;
}

/* Whether a connection begins with this packet. */
static __always_inline int begins(const struct packet *packet)
{
	struct tcphdr *tcp = tcp_of(packet);

	return tcp && tcp->syn && !tcp->ack;
}

/* How long the IP packet says that it is. Its IP header is known to be there. */
static __always_inline __u32 ip_length(const struct packet *packet)
{
	const struct ipv6hdr *ipv6 = packet->ip;
	const struct iphdr *ipv4 = packet->ip;

	return packet->v6 ? sizeof(*ipv6) + bpf_ntohs(ipv6->payload_len) : bpf_ntohs(ipv4->tot_len);
}

/*
 * What has to be true of a packet that is ours, and is nobody's business of any other: checked after the look-up.
 */
static __always_inline int check_ours(const struct packet *packet)
{
	__u32 total = ip_length(packet), least = 8; /* UDP, ICMP, and what any fragment but the last has */

	if (packet->kind <= FIRST_FRAGMENT && packet->protocol == IPPROTO_TCP)
		least = sizeof(struct tcphdr);
	if (packet->kind == LATER_FRAGMENT)
		least = packet->v6 ? sizeof(struct extension) + 1 : 1;
	if (total < packet->header + least || packet->ip + total > packet->end)
		return DROP_MALFORMED;
	if (packet->kind == ICMP_ERROR && packet->inner_transport + 8 > packet->ip + total)
		return DROP_MALFORMED;
	return FORWARDED;
}

static __always_inline __u8 ttl_of(const struct packet *packet)
{
	return packet->v6 ? ((struct ipv6hdr *)packet->ip)->hop_limit : ((struct iphdr *)packet->ip)->ttl;
}

/* Whether a router may fragment it: IPv4 without "don't fragment". */
static __always_inline int may_fragment(const struct packet *packet)
{
	return !packet->v6 && !(((struct iphdr *)packet->ip)->frag_off & bpf_htons(IP_DF));
}
