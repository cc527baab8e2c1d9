/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* How a packet leaves: its MAC addresses, its interface, its length against the MTU. */

#define MAC_MASK 0xffffffffffffULL

/* Where a packet goes and on whose account. */
struct way_out {
	__u32 ingress; /* interface index */
	__u32 egress; /* interface index */
	__u64 ingress_port; /* struct port */
	__u64 egress_port;
	__u64 next_hop; /* as in struct backend */
	__u32 backend; /* number */
	enum way way;
};

/* An interface of ours: MTU and MAC in one word, or 0. */
static __always_inline __u64 port_of(__u32 interface)
{
	struct port *port = ports.lookup(&interface);

	return port ? *(volatile __u64 *)&port->word : 0;
}

/* Flooded and mirrored frames reach a NIC in promiscuous mode; who forwards them duplicates a packet. */
static __always_inline int check_addressed_to_us(const struct packet *packet, struct way_out *out)
{
	out->ingress_port = port_of(out->ingress);
	if ((*(__u64 *)packet->eth ^ out->ingress_port) & MAC_MASK)
		return PASS_OTHER_HOST;
	return FORWARDED;
}

/* Checks that the packet can leave by the next hop; writes nothing to it. */
static __always_inline int check_way_out(const struct packet *packet, struct way_out *out)
{
	out->egress = out->next_hop >> 48;
	out->egress_port = out->egress == out->ingress ? out->ingress_port : port_of(out->egress);
	if (!out->egress_port)
		return DROP_NO_EGRESS;
	if (packet->length - sizeof(struct ethhdr) > out->egress_port >> 48)
		return DROP_TOO_BIG;
	return FORWARDED;
}

/* Destination MAC from the next hop, source MAC from the port: 12 bytes in two stores. */
static __always_inline void write_macs(struct packet *packet, const struct way_out *out)
{
	*(__u64 *)packet->eth = (out->next_hop & MAC_MASK) | out->egress_port << 48;
	*(__u32 *)((void *)packet->eth + 8) = out->egress_port >> 16;
}

static __always_inline int transmit(const struct packet *packet, const struct way_out *out)
{
	int action = XDP_TX;

	if (out->egress != out->ingress) {
		action = egress.redirect_map(out->egress, XDP_DROP);
		if (action != XDP_REDIRECT)
			return count_reason(DROP_NO_EGRESS);
	}
	count_traffic(out->backend, packet->length, out->way);
	return action;
}
