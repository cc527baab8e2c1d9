/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* How a packet leaves: its interface, its MAC addresses and VLAN tags, and the room for an outer header. */

#define MAC_MASK 0xffffffffffffULL
#define TAG_PRESENT 0x8000
#define TAG_8021AD 0x4000

/* Where a packet goes and on whose account. */
struct way_out {
	__u32 ingress; /* interface index */
	__u32 egress; /* interface index */
	__u64 ingress_port; /* the word of struct port */
	__u64 egress_port;
	__u64 tags; /* of the egress, as struct port has them: in the upper half */
	__u64 next_hop; /* as in struct backend */
	__u32 backend; /* number */
	enum way way;
};

/* Flooded and mirrored frames reach a NIC in promiscuous mode; who forwards them duplicates a packet. */
static __always_inline int check_addressed_to_us(const struct packet *packet, struct way_out *out)
{
	struct port *port = ports.lookup(&out->ingress);

	if (!port)
		return DROP_INCONSISTENT;
	out->ingress_port = *(volatile __u64 *)&port->word;
	if ((*(__u64 *)packet->eth ^ out->ingress_port) & MAC_MASK)
		return PASS_OTHER_HOST;
	return FORWARDED;
}

/* Finds the interface that the next hop is reached by; writes nothing to the packet. */
static __always_inline int find_way_out(struct way_out *out)
{
	__u32 interface = out->next_hop >> 48;
	struct port *port;

	out->egress = interface;
	out->egress_port = out->ingress_port;
	if (interface == out->ingress)
		return FORWARDED;
	port = ports.lookup(&interface);
	out->egress_port = port ? *(volatile __u64 *)&port->word : 0;
	if (!out->egress_port)
		return DROP_NO_EGRESS;
#if WITH_VLAN
	__u64 link = *(volatile __u64 *)&port->link;

	out->egress = (__u32)link;
	out->tags = link >> 32 << 32;
#endif
	return FORWARDED;
}

/* Destination MAC from the next hop, source MAC from the port: 12 bytes in two stores. */
static __always_inline void write_macs(void *eth, const struct way_out *out)
{
	*(__u64 *)eth = (out->next_hop & MAC_MASK) | out->egress_port << 48;
	*(__u32 *)(eth + 8) = out->egress_port >> 16;
}

static __always_inline void *write_tag(void *place, __u16 tag)
{
	struct vlan *vlan = place + 2;

	*(__be16 *)place = tag & TAG_8021AD ? bpf_htons(ETH_P_8021AD) : bpf_htons(ETH_P_8021Q);
	vlan->tci = bpf_htons(tag & 0xfff);
	return place + sizeof(*vlan);
}

/*
 * Puts the Ethernet header of the way out before the IP packet, `outer` bytes of room between them, and moves the start of
 * the frame to it. Answers where the room, or without any the IP packet, is now, or NULL. All pointers into the packet from
 * before are void.
 */
static __always_inline void *reframe(struct xdp_md *ctx, const struct packet *packet, const struct way_out *out,
				     int outer, __be16 type)
{
	__u16 outer_tag = out->tags >> 48, inner_tag = out->tags >> 32;
	int tag_bytes = WITH_VLAN ? ((outer_tag & TAG_PRESENT) >> 13) + ((inner_tag & TAG_PRESENT) >> 13) : 0;
	int grow = outer + tag_bytes - (WITH_VLAN ? packet->tag_bytes : 0);
	void *data, *end, *place;

	if (grow && bpf_xdp_adjust_head(ctx, -grow))
		return NULL;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) + 2 * sizeof(struct vlan) > end)
		return NULL;
	write_macs(data, out);
	place = data + offsetof(struct ethhdr, h_proto);
#if WITH_VLAN
	if (outer_tag & TAG_PRESENT)
		place = write_tag(place, outer_tag);
	if (inner_tag & TAG_PRESENT)
		place = write_tag(place, inner_tag);
#endif
	*(__be16 *)place = type;
	return place + 2;
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
