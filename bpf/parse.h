/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From a frame to the fields that the later stages need. All bounds of the headers are checked here. */

struct packet {
	struct ethhdr *eth;
	struct iphdr *ip;
	void *transport;
	void *end;
	__u64 length; /* of the frame, bytes */
	__be16 source_port;
	__be16 dest_port;
	__u8 protocol;
	__u8 first_fragment;
};

static __always_inline int parse(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	__be16 *ports;

	if ((void *)(eth + 1) > end)
		return PASS_MALFORMED;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return PASS_NOT_VIP; /* no VIP has an IPv6 address */
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return PASS_NOT_IP;
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return PASS_MALFORMED;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return PASS_NOT_TCP_UDP;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return PASS_FRAGMENT;
	ports = (void *)ip + ip->ihl * 4;
	if ((void *)(ports + 2) > end)
		return PASS_MALFORMED;

	packet->eth = eth;
	packet->ip = ip;
	packet->transport = ports;
	packet->end = end;
	packet->length = end - data;
	packet->source_port = ports[0];
	packet->dest_port = ports[1];
	packet->protocol = ip->protocol;
	packet->first_fragment = (ip->frag_off & bpf_htons(IP_MF)) != 0;
	return FORWARDED;
}

/* Whether a connection begins with this packet. Its TCP header is known to be there. */
static __always_inline int begins(const struct packet *packet)
{
	struct tcphdr *tcp = packet->transport;

	return packet->protocol == IPPROTO_TCP && (void *)(tcp + 1) <= packet->end && tcp->syn && !tcp->ack;
}

/*
 * What has to be true of a packet that is ours, and is nobody's business of any other: checked after the look-up.
 */
static __always_inline int check_ours(const struct packet *packet)
{
	__u32 header = packet->ip->ihl * 4, total = bpf_ntohs(packet->ip->tot_len);
	__u32 least = packet->protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);

	if (packet->first_fragment)
		return DROP_FRAGMENT;
	if (total < header + least || (void *)packet->ip + total > packet->end)
		return DROP_MALFORMED;
	return FORWARDED;
}
