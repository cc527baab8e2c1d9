/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Packets that are answered here: pings, and what is too long for its way. */

#define QUOTED 128 /* bytes of a packet that is too long */
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

#if WITH_ECHO
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
#endif

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

/*
 * Turns the packet into the message that it is longer than `mtu` bytes: ICMP "fragmentation needed" (RFC 1191) from the
 * VIP, or ICMPv6 "packet too big" (RFC 4443 §3.2), to its sender, quoting its first bytes.
 */
static __always_inline int answer_too_big(struct xdp_md *ctx, const struct packet *packet, __u32 mtu)
{
	int v6 = packet->v6, room = v6 ? sizeof(struct ipv6hdr) + 8 : sizeof(struct iphdr) + 8;
	int layer2 = sizeof(struct ethhdr) + (WITH_VLAN ? packet->tag_bytes : 0);
	__u64 start[3] = {};
	struct icmp *icmp;
	void *data, *end, *ip, *quoted;
	__u32 sum;

	if (packet->kind == ICMP_ERROR || packet->kind == LATER_FRAGMENT || packet->length < layer2 + QUOTED ||
	    !is_host(&packet->from, v6) || !may_answer())
		return DROP_TOO_BIG;
	if (bpf_xdp_adjust_tail(ctx, -(int)(packet->length - layer2 - QUOTED)) || bpf_xdp_adjust_head(ctx, -room))
		return DROP_NO_HEADROOM;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + 48 + 24 + 24 > end)
		return DROP_INCONSISTENT;
	quoted = data + room;
	start[0] = *(__u64 *)quoted;
	start[1] = *(__u64 *)(quoted + 8);
	start[2] = *(__u64 *)(quoted + 16);
	*(__u64 *)data = start[0];
	*(__u64 *)(data + 8) = start[1];
	*(__u64 *)(data + 16) = start[2];
	swap_macs(data);
	ip = data + layer2;
	quoted = ip + room;
	if (quoted + QUOTED > end)
		return DROP_INCONSISTENT;
	sum = bpf_csum_diff(NULL, 0, quoted, QUOTED, 0);
	icmp = quoted - 8;
	__builtin_memset(icmp, 0, sizeof(*icmp));
	if (v6) {
		struct ipv6hdr *header = ip;
		__u64 *address = ip + offsetof(struct ipv6hdr, saddr);

		mtu = mtu < IPV6_LEAST_MTU ? IPV6_LEAST_MTU : mtu;
		icmp->type = ICMPV6_TOO_BIG;
		icmp->rest = bpf_htonl(mtu);
		*(__be32 *)ip = bpf_htonl(0x60000000);
		header->payload_len = bpf_htons(8 + QUOTED);
		header->nexthdr = IPPROTO_ICMPV6;
		header->hop_limit = ANSWER_TTL;
		address[0] = packet->to.hi;
		address[1] = packet->to.lo;
		address[2] = packet->from.hi;
		address[3] = packet->from.lo;
		icmp->checksum = update_checksum(0xffff, (__u64)sum + icmp->type + bpf_htons(mtu) +
								 bpf_htons(8 + QUOTED) + bpf_htons(IPPROTO_ICMPV6) +
								 address_sum(packet->to.hi, packet->to.lo) +
								 address_sum(packet->from.hi, packet->from.lo));
	} else {
		struct iphdr *header = ip;

		icmp->type = ICMP_UNREACHABLE;
		icmp->code = ICMP_FRAGMENTATION_NEEDED;
		icmp->rest = bpf_htonl(mtu);
		icmp->checksum = update_checksum(
			0xffff, (__u64)sum + (ICMP_FRAGMENTATION_NEEDED << 8 | ICMP_UNREACHABLE) + bpf_htons(mtu));
		__builtin_memset(header, 0, sizeof(*header));
		*(__u8 *)ip = 0x45;
		header->tot_len = bpf_htons(sizeof(*header) + 8 + QUOTED);
		header->ttl = ANSWER_TTL;
		header->protocol = IPPROTO_ICMP;
		header->saddr = packet->to.lo >> 32;
		header->daddr = packet->from.lo >> 32;
		header->check = update_checksum(
			0xffff, (__u64)0x45 + header->tot_len + (IPPROTO_ICMP << 8 | ANSWER_TTL) +
					address_sum(0, packet->to.lo) + address_sum(0, packet->from.lo));
	}
	return ANSWER_TOO_BIG;
}
