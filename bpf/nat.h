/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Network address translation: addresses, ports, TTL, and by difference the checksums that cover them (RFC 1624). */

/* What decrementing the TTL adds to the sum: it is the low byte of its word on a little-endian machine. */
#define TTL_DELTA 0xfffe

/* Adds a difference to a checksum as it lies in the packet. */
static __always_inline __u16 update_checksum(__u16 checksum, __u32 difference)
{
	__u32 sum = (__u16)~checksum + difference;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int check_ttl(const struct packet *packet)
{
	return packet->ip->ttl <= 1 ? PASS_TTL_EXPIRED : FORWARDED;
}

static __always_inline void update_checksums(struct packet *packet, __u16 address_delta, __u16 transport_delta)
{
	packet->ip->ttl--;
	packet->ip->check = update_checksum(packet->ip->check, (__u32)address_delta + TTL_DELTA);
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = packet->transport;

		if ((void *)(tcp + 1) <= packet->end)
			tcp->check = update_checksum(tcp->check, transport_delta);
	} else {
		struct udphdr *udp = packet->transport;

		/* 0 says that the sender made none (RFC 768), so a sum of 0 is written as its other form. */
		if ((void *)(udp + 1) <= packet->end && udp->check) {
			udp->check = update_checksum(udp->check, transport_delta);
			if (!udp->check)
				udp->check = 0xffff;
		}
	}
}

static __always_inline void nat_to_backend(struct packet *packet, const struct backend *backend)
{
	__be16 *ports = packet->transport;

	packet->ip->daddr = backend->endpoint.lo >> 32;
	ports[1] = backend->endpoint.port;
	update_checksums(packet, backend->address_delta, backend->transport_delta);
}

static __always_inline void nat_to_client(struct packet *packet, const struct backend *backend, const struct vip *vip)
{
	__be16 *ports = packet->transport;

	packet->ip->saddr = vip->endpoint.lo >> 32;
	ports[0] = vip->endpoint.port;
	update_checksums(packet, ~backend->address_delta, ~backend->transport_delta);
}
