/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Translation of addresses and ports, and by difference of the checksums that cover them (RFC 1624). */

/* What decrementing the TTL adds to the sum: it is the low byte of its word on a little-endian machine. */
#define TTL_DELTA 0xfffe

/* Adds a difference, of at most 32 bits, to a checksum as it lies in the packet. */
static __always_inline __u16 update_checksum(__u16 checksum, __u64 difference)
{
	__u64 sum = (__u16)~checksum + difference;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The one's-complement sum of an address; that of a mapped IPv4 address is that of the address, as 0xffff adds nothing. */
static __always_inline __u32 address_sum(__u64 hi, __u64 lo)
{
	__u64 sum = (hi & 0xffffffff) + (hi >> 32) + (lo & 0xffffffff) + (lo >> 32);

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline void decrement_ttl(struct packet *packet)
{
	if (packet->v6) {
		((struct ipv6hdr *)packet->ip)->hop_limit--;
	} else {
		struct iphdr *ip = packet->ip;

		ip->ttl--;
		ip->check = update_checksum(ip->check, TTL_DELTA);
	}
}

#if WITH_NAT || WITH_FULLNAT

/* Updates the checksum of a TCP or UDP header, if it is there. Answers what that adds to a sum over it. */
static __always_inline __u32 update_transport(void *transport, void *end, __u8 protocol, __u32 difference)
{
	__u16 *checksum, old;

	if (protocol == IPPROTO_TCP) {
		checksum = transport + offsetof(struct tcphdr, check);
		if ((void *)(checksum + 1) > end)
			return 0;
		old = *checksum;
		*checksum = update_checksum(old, difference);
	} else {
		checksum = transport + offsetof(struct udphdr, check);
		if ((void *)(checksum + 1) > end)
			return 0;
		old = *checksum;
		/* 0 says that the sender made none (RFC 768), so a sum of 0 is written as its other form. */
		if (!old)
			return 0;
		*checksum = update_checksum(old, difference);
		if (!*checksum)
			*checksum = 0xffff;
	}
	return (__u16)~old + *checksum;
}

static __always_inline void write_address(void *ip, int v6, int source, __u64 hi, __u64 lo)
{
	if (v6) {
		__u64 *address = ip + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));

		address[0] = hi;
		address[1] = lo;
	} else {
		struct iphdr *ipv4 = ip;

		if (source)
			ipv4->saddr = lo >> 32;
		else
			ipv4->daddr = lo >> 32;
	}
}

/* A translation: the new ends of the flow, and which of them are new. */
struct translation {
	struct endpoint from;
	struct endpoint to;
	__u32 address_delta; /* what the change of addresses adds to a sum over them */
	__u8 new_from;
	__u8 new_to;
	__u8 any_source; /* an ICMP error leaves with the new source, whoever sent it */
};

static __always_inline __u32 port_delta(const struct packet *packet, const struct translation *new)
{
	__u32 delta = 0;

	if (new->new_from)
		delta += (__u16)~packet->from.port + new->from.port;
	if (new->new_to)
		delta += (__u16)~packet->to.port + new->to.port;
	return delta;
}

/* Where the transport checksum of the packet is that an error is about. */
static __always_inline void *inner_checksum(const struct packet *packet)
{
	return packet->inner_transport +
	       (packet->protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check));
}

/* An error is about a packet that went the other way: where that came from is where the flow goes to. */
static __always_inline void translate_error(struct packet *packet, const struct translation *new)
{
	struct icmp *icmp = packet->transport;
	__u32 ports = port_delta(packet, new), outer = 0, sum = ports;
	__u64 hi = 0, lo;
	__be16 *inner_ports = packet->inner_transport;
	int source;

	if ((void *)(icmp + 1) > packet->end || (void *)(inner_ports + 2) > packet->end)
		return;
	if (packet->v6) {
		struct ipv6hdr *ip = packet->ip;
		__u64 *address = packet->ip + offsetof(struct ipv6hdr, saddr);

		if ((void *)(ip + 1) > packet->end || packet->inner + sizeof(*ip) > packet->end)
			return;
		hi = address[0];
		lo = address[1];
	} else {
		struct iphdr *ip = packet->ip, *inner = packet->inner;

		if ((void *)(ip + 1) > packet->end || (void *)(inner + 1) > packet->end)
			return;
		lo = mapped(ip->saddr);
		inner->check = update_checksum(inner->check, new->address_delta);
	}
	source = new->new_from && (new->any_source || (hi == packet->from.hi && lo == packet->from.lo));
	if (source) {
		outer = (__u16)~address_sum(hi, lo) + address_sum(new->from.hi, new->from.lo);
		write_address(packet->ip, packet->v6, 1, new->from.hi, new->from.lo);
	}
	if (new->new_to) {
		outer += (__u16)~address_sum(packet->to.hi, packet->to.lo) + address_sum(new->to.hi, new->to.lo);
		write_address(packet->ip, packet->v6, 0, new->to.hi, new->to.lo);
		write_address(packet->inner, packet->v6, 1, new->to.hi, new->to.lo);
		inner_ports[0] = new->to.port;
	}
	if (new->new_from) {
		write_address(packet->inner, packet->v6, 0, new->from.hi, new->from.lo);
		inner_ports[1] = new->from.port;
	}
	/* What is quoted may end before the checksum, and padding follow. */
	if (inner_checksum(packet) + 2 <= packet->ip + ip_length(packet))
		sum += update_transport(inner_ports, packet->end, packet->protocol, new->address_delta + ports);
	if (packet->v6) { /* addresses are covered where they are, and in the pseudo-header (RFC 4443 §2.3) */
		sum += new->address_delta + outer;
	} else {
		struct iphdr *ip = packet->ip;

		ip->check = update_checksum(ip->check, outer);
	}
	icmp->checksum = update_checksum(icmp->checksum, sum);
}

/* The IP header of the packet is known to be there. */
static __always_inline void translate(struct packet *packet, const struct translation *new)
{
	decrement_ttl(packet);
	if (packet->kind == ICMP_ERROR) {
		translate_error(packet, new);
		return;
	}
	if (new->new_from)
		write_address(packet->ip, packet->v6, 1, new->from.hi, new->from.lo);
	if (new->new_to)
		write_address(packet->ip, packet->v6, 0, new->to.hi, new->to.lo);
	if (!packet->v6) {
		struct iphdr *ip = packet->ip;

		ip->check = update_checksum(ip->check, new->address_delta);
	}
	if (packet->kind != LATER_FRAGMENT) {
		__be16 *ports = packet->transport;

		if ((void *)(ports + 2) > packet->end)
			return;
		if (new->new_from)
			ports[0] = new->from.port;
		if (new->new_to)
			ports[1] = new->to.port;
		update_transport(ports, packet->end, packet->protocol, new->address_delta + port_delta(packet, new));
	}
}

#endif
