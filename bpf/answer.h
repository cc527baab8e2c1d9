/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Packets that are answered here: pings, what is too long for its way, what nobody serves. */

#define QUOTED_TOO_BIG 128 /* bytes of a packet that is too long */
#define ANSWER_TTL 64
#define ANSWERS_PER_PERIOD 256 /* on each CPU; RFC 1812 §4.3.2.8 and RFC 4443 §2.4(f) ask for a limit */
#define PERIOD_JIFFIES 25 /* 25 to 250 ms, as CONFIG_HZ has it */
#define IPV6_LEAST_MTU 1280

static __always_inline void swap_macs(void *eth)
{
	__u64 destination = *(__u64 *)eth;
	__u64 source = *(__u64 *)(eth + 4) >> 16;

	*(__u64 *)eth = source | destination << 48;
	*(__u32 *)(eth + 8) = destination >> 16;
}

/* Whether an address may be that of a single host, which can be answered (RFC 1122 §3.2.2, RFC 4443 §2.4(e)). */
static __always_inline int is_host(const struct endpoint *who, int v6)
{
	__u8 first = v6 ? who->hi : who->lo >> 32;

	if (!v6)
		return first && first != 127 && first < 224;
	return first != 0xff && (who->hi || (who->lo && who->lo != 1ULL << 56));
}

/* Whether pings are answered here. */
static __always_inline int answers_pings(void)
{
	__u32 zero = 0;
	struct control *options = control.lookup(&zero);

	return options && !(*(volatile __u64 *)&options->flags & CONTROL_NO_ECHO);
}

/* The rest of the packet, which the checksum covers, stays as it is. */
static __always_inline int answer_echo(const struct packet *packet)
{
	struct icmp *icmp = packet->transport;
	__u8 answer = packet->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY;

	if ((void *)(icmp + 1) > packet->end || !is_host(&packet->from, packet->v6))
		return PASS_NOT_TCP_UDP;
	icmp->checksum = update_checksum(icmp->checksum, (__u32)(__u16) ~(__u16)icmp->type + answer);
	icmp->type = answer;
	if (packet->v6) {
		struct ipv6hdr *ip = packet->ip;
		__u64 *address = packet->ip + offsetof(struct ipv6hdr, saddr);

		if ((void *)(ip + 1) > packet->end)
			return PASS_NOT_TCP_UDP;
		ip->hop_limit = ANSWER_TTL;
		address[0] = packet->to.hi;
		address[1] = packet->to.lo;
		address[2] = packet->from.hi;
		address[3] = packet->from.lo;
	} else {
		struct iphdr *ip = packet->ip;

		if ((void *)(ip + 1) > packet->end)
			return PASS_NOT_TCP_UDP;
		ip->check = update_checksum(ip->check, (__u32)(__u16) ~(__u16)ip->ttl + ANSWER_TTL);
		ip->ttl = ANSWER_TTL;
		ip->saddr = packet->to.lo >> 32;
		ip->daddr = packet->from.lo >> 32;
	}
	swap_macs(packet->eth);
	return ANSWER_ECHO;
}

/* Whether another error may be sent now. */
static __always_inline int may_answer(void)
{
	__u32 zero = 0, now = bpf_jiffies64(), since;
	__u64 *answer = answers.lookup(&zero);

	if (!answer)
		return 0;
	since = *answer >> 32;
	if (now - since > PERIOD_JIFFIES)
		*answer = (__u64)now << 32;
	if ((__u32)*answer >= ANSWERS_PER_PERIOD)
		return 0;
	(*answer)++;
	return 1;
}

/* Writes an IP header without options, from whom the packet was for, to its sender. */
static __always_inline void write_header(void *ip, const struct packet *packet, __u8 protocol, __u16 payload)
{
	if (packet->v6) {
		struct ipv6hdr *header = ip;
		__u64 *address = ip + offsetof(struct ipv6hdr, saddr);

		*(__be32 *)ip = bpf_htonl(0x60000000);
		header->payload_len = bpf_htons(payload);
		header->nexthdr = protocol;
		header->hop_limit = ANSWER_TTL;
		address[0] = packet->to.hi;
		address[1] = packet->to.lo;
		address[2] = packet->from.hi;
		address[3] = packet->from.lo;
	} else {
		struct iphdr *header = ip;

		__builtin_memset(header, 0, sizeof(*header));
		*(__u8 *)ip = 0x45;
		header->tot_len = bpf_htons(sizeof(*header) + payload);
		header->ttl = ANSWER_TTL;
		header->protocol = protocol;
		header->saddr = packet->to.lo >> 32;
		header->daddr = packet->from.lo >> 32;
		header->check = update_checksum(0xffff, (__u64)0x45 + header->tot_len + (protocol << 8 | ANSWER_TTL) +
								address_sum(0, packet->to.lo) +
								address_sum(0, packet->from.lo));
	}
}

/* The sum over the pseudo-header of what is sent back. */
static __always_inline __u64 pseudo_sum(const struct packet *packet, __u8 protocol, __u16 payload)
{
	return (__u64)bpf_htons(payload) + bpf_htons(protocol) + address_sum(packet->to.hi, packet->to.lo) +
	       address_sum(packet->from.hi, packet->from.lo);
}

/*
 * Turns the packet into an ICMP or ICMPv6 error about it, to its sender, quoting its first `quoted` bytes; at least so long
 * it is. Answers FORWARDED, or why that is not to be done; `quoted`, a multiple of 4, is known when this is compiled.
 */
static __always_inline int answer_error(struct xdp_md *ctx, const struct packet *packet, __u8 type, __u8 code,
					__u16 rest, int quoted)
{
	int v6 = packet->v6, room = v6 ? sizeof(struct ipv6hdr) + 8 : sizeof(struct iphdr) + 8;
	int layer2 = sizeof(struct ethhdr) + (WITH_VLAN ? packet->tag_bytes : 0);
	__u64 start[3] = {};
	struct icmp *icmp;
	void *data, *end, *ip, *quote;
	__u64 sum;

	if (bpf_xdp_adjust_tail(ctx, -(int)(packet->length - layer2 - quoted)) || bpf_xdp_adjust_head(ctx, -room))
		return DROP_NO_HEADROOM;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	quote = data + room;
	if (quote + sizeof(start) > end)
		return DROP_INCONSISTENT;
	start[0] = *(__u64 *)quote;
	start[1] = *(__u64 *)(quote + 8);
	start[2] = *(__u64 *)(quote + 16);
	*(__u64 *)data = start[0];
	*(__u64 *)(data + 8) = start[1];
	*(__u64 *)(data + 16) = start[2];
	swap_macs(data);
	ip = data + layer2;
	quote = ip + room;
	if (quote + quoted > end)
		return DROP_INCONSISTENT;
	icmp = quote - 8;
	icmp->type = type;
	icmp->code = code;
	icmp->rest = bpf_htonl(rest);
	sum = (__u64)bpf_csum_diff(NULL, 0, quote, quoted, 0) + (code << 8 | type) + bpf_htons(rest);
	write_header(ip, packet, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 8 + quoted);
	if (v6)
		sum += pseudo_sum(packet, IPPROTO_ICMPV6, 8 + quoted);
	icmp->checksum = update_checksum(0xffff, sum);
	return FORWARDED;
}

/*
 * Says that the packet is longer than `mtu` bytes: ICMP "fragmentation needed" (RFC 1191) from the VIP, or ICMPv6 "packet
 * too big" (RFC 4443 §3.2).
 */
static __always_inline int answer_too_big(struct xdp_md *ctx, const struct packet *packet, __u32 mtu)
{
	int layer2 = sizeof(struct ethhdr) + (WITH_VLAN ? packet->tag_bytes : 0), v6 = packet->v6, reason;

	if (packet->kind == ICMP_ERROR || packet->kind == LATER_FRAGMENT || packet->length < layer2 + QUOTED_TOO_BIG ||
	    !is_host(&packet->from, v6) || !may_answer())
		return DROP_TOO_BIG;
	if (v6 && mtu < IPV6_LEAST_MTU)
		mtu = IPV6_LEAST_MTU;
	reason = answer_error(ctx, packet, v6 ? ICMPV6_TOO_BIG : ICMP_UNREACHABLE, v6 ? 0 : ICMP_FRAGMENTATION_NEEDED,
			      mtu, QUOTED_TOO_BIG);
	return reason ? reason : ANSWER_TOO_BIG;
}

/*
 * Resets the connection that the segment is of (RFC 9293 §3.10.7.1), as a host does that does not know it. Answers `done`,
 * or `undone` for what is not to be answered.
 */
static __always_inline int reset(struct xdp_md *ctx, const struct packet *packet, int done, int undone)
{
	int layer2 = sizeof(struct ethhdr) + (WITH_VLAN ? packet->tag_bytes : 0);
	int header = packet->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u32 payload = ip_length(packet) - packet->header, length;
	struct tcphdr *tcp = tcp_of(packet);
	void *data, *end, *ip;
	__be32 seq = 0, ack = 0;
	__u16 flags = 0x5004; /* five words, RST */

	if (packet->kind != PLAIN || !is_host(&packet->from, packet->v6) || !tcp || tcp->rst || tcp->doff < 5 ||
	    tcp->doff * 4 > payload)
		return undone;
	if (tcp->ack) {
		seq = tcp->ack_seq;
	} else {
		length = payload - tcp->doff * 4 + tcp->syn + tcp->fin;
		ack = bpf_htonl(bpf_ntohl(tcp->seq) + length);
		flags |= 0x10;
	}
	if (bpf_xdp_adjust_tail(ctx, -(int)(packet->length - layer2 - header - sizeof(*tcp))))
		return DROP_NO_HEADROOM;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) > end)
		return DROP_INCONSISTENT;
	swap_macs(data);
	ip = data + layer2;
	if (ip + header + sizeof(*tcp) > end)
		return DROP_INCONSISTENT;
	write_header(ip, packet, IPPROTO_TCP, sizeof(*tcp));
	tcp = ip + header;
	tcp->source = packet->to.port;
	tcp->dest = packet->from.port;
	tcp->seq = seq;
	tcp->ack_seq = ack;
	*(__be16 *)((void *)tcp + 12) = bpf_htons(flags);
	tcp->window = 0;
	tcp->urg_ptr = 0;
	tcp->check = update_checksum(0xffff, pseudo_sum(packet, IPPROTO_TCP, sizeof(*tcp)) + packet->to.port +
						     packet->from.port + seq + (__u64)ack + bpf_htons(flags));
	return done;
}

/* Tells a client that nobody serves it: a TCP reset or "port unreachable". Else it would wait for nothing. */
static __always_inline int refuse(struct xdp_md *ctx, const struct packet *packet)
{
	int reason;

	if (packet->protocol == IPPROTO_TCP)
		return reset(ctx, packet, ANSWER_REFUSED, DROP_NO_BACKEND);
	/* What is quoted reaches to the end of the UDP header, if that is where it usually is. */
	if (packet->kind != PLAIN || !is_host(&packet->from, packet->v6) ||
	    packet->header != (packet->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) || !may_answer())
		return DROP_NO_BACKEND;
	if (packet->v6)
		reason = answer_error(ctx, packet, ICMPV6_UNREACHABLE, ICMPV6_PORT_UNREACHABLE, 0,
				      sizeof(struct ipv6hdr) + sizeof(struct udphdr));
	else
		reason = answer_error(ctx, packet, ICMP_UNREACHABLE, ICMP_PORT_UNREACHABLE, 0,
				      sizeof(struct iphdr) + sizeof(struct udphdr));
	return reason ? reason : ANSWER_REFUSED;
}
