/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * On a backend: takes off the outer header that the balancer put before a packet (tunnel.h), and passes the packet up, to
 * the VIP on the loopback interface. For kernels without tunnel devices, or where nobody wants to set one up per family.
 *
 * Only packets for the VIPs are touched. The frame keeps its MAC addresses and tags, so one that was for another host
 * still is. A header that is not understood is left to the kernel, which knows what to do with it or drops it.
 *
 * Of checksums, the outer IPv4 header's is verified, since its length and protocol are relied on. GUE's outer UDP checksum
 * is not: it covers the whole packet, and reading that would cost more than all the rest; over IPv6 it may be 0 (RFC 6935,
 * for tunnels). What it would tell is found out by the host, from the checksums of the inner transport and its
 * pseudo-header, which has the addresses.
 *
 * Switches: REASONS and VIPS, where the maps are pinned, and GUE_PORT. Another set of VIPs is another map and another
 * program, so that both are replaced at once.
 */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "decap_abi.h"

#define offsetof(type, member) __builtin_offsetof(type, member)
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define MAPPED_IPV4 0xffff0000ULL /* bytes 8..11 of ::ffff:a.b.c.d, in a little-endian word */
#define MAX_TAGS 2
#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3
#define UNDECIDED -1 /* in place of a reason */

/* As in abi.h: 16 bytes in network order, IPv4 mapped. */
struct address {
	__u64 hi;
	__u64 lo;
};

BPF_TABLE_PINNED("hash", struct address, __u8, decap_vips, MAX_DECAP_VIPS, VIPS, 0);
BPF_TABLE_PINNED("percpu_array", __u32, __u64, decap_reasons, DECAP_REASONS, REASONS, 0);

struct tag {
	__be16 type; /* of the tag itself */
	__be16 tci;
};

/* What is before the outer header, and is put before the inner one; without the last EtherType. */
struct link_layer {
	__u32 macs[3];
	struct tag tags[MAX_TAGS];
};

struct tunnel {
	void *outer;
	void *inner;
	void *end;
	__u32 payload; /* bytes behind the outer header, as it says itself */
	__u32 outer_bytes; /* to be taken off */
	__u8 tag_bytes;
	__u8 outer_v6;
	__u8 inner_v6;
	__u8 gue;
	__u8 outer_ecn;
	__u8 inner_ecn;
};

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The class of an IPv6 packet: DSCP and ECN. */
static __always_inline __u8 traffic_class(const void *ip)
{
	return bpf_ntohs(*(const __be16 *)ip) >> 4;
}

static __always_inline int of_tunnels(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_UDP;
}

static __always_inline int outer_ipv4(struct tunnel *tunnel, __u8 *protocol)
{
	struct iphdr *ip = tunnel->outer;
	const __u16 *word = tunnel->outer;
	__u32 length, sum = 0;
	int i;

	if ((void *)(ip + 1) > tunnel->end || ip->version != 4)
		return PASS_NOT_TUNNEL;
	if (!of_tunnels(ip->protocol))
		return PASS_NOT_TUNNEL;
	if (ip->ihl != 5)
		return PASS_OPTIONS;
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return PASS_FRAGMENT;
#pragma unroll
	for (i = 0; i < (int)(sizeof(*ip) / 2); i++)
		sum += word[i];
	length = bpf_ntohs(ip->tot_len);
	if (fold(sum) != 0xffff || length < sizeof(*ip))
		return PASS_MALFORMED;
	*protocol = ip->protocol;
	tunnel->outer_ecn = ip->tos & ECN_MASK;
	tunnel->outer_bytes = sizeof(*ip);
	tunnel->payload = length - sizeof(*ip);
	return UNDECIDED;
}

static __always_inline int outer_ipv6(struct tunnel *tunnel, __u8 *protocol)
{
	struct ipv6hdr *ip = tunnel->outer;
	__u8 *behind = (void *)(ip + 1); /* an extension header begins with the next protocol */

	if ((void *)(ip + 1) > tunnel->end || ip->version != 6)
		return PASS_NOT_TUNNEL;
	if (ip->nexthdr == IPPROTO_FRAGMENT || ip->nexthdr == IPPROTO_DSTOPTS) {
		if ((void *)(behind + 1) > tunnel->end || !of_tunnels(*behind))
			return PASS_NOT_TUNNEL;
		return ip->nexthdr == IPPROTO_FRAGMENT ? PASS_FRAGMENT : PASS_OPTIONS;
	}
	if (!of_tunnels(ip->nexthdr))
		return PASS_NOT_TUNNEL;
	*protocol = ip->nexthdr;
	tunnel->outer_v6 = 1;
	tunnel->outer_ecn = traffic_class(ip) & ECN_MASK;
	tunnel->outer_bytes = sizeof(*ip);
	tunnel->payload = bpf_ntohs(ip->payload_len);
	return UNDECIDED;
}

/* The UDP header of GUE; the version of what follows is in the place where other variants have their own number. */
static __always_inline int strip_udp(struct tunnel *tunnel)
{
	struct udphdr *udp = tunnel->inner;
	__u8 *version = (void *)(udp + 1);
	__u32 length;

	if ((void *)(udp + 1) > tunnel->end || udp->dest != bpf_htons(GUE_PORT))
		return PASS_NOT_TUNNEL;
	length = bpf_ntohs(udp->len);
	if ((void *)(version + 1) > tunnel->end || length <= sizeof(*udp) || length > tunnel->payload)
		return PASS_MALFORMED;
	if (*version >> 4 != 4 && *version >> 4 != 6)
		return PASS_NOT_TUNNEL;
	tunnel->gue = 1;
	tunnel->inner_v6 = *version >> 4 == 6;
	tunnel->inner = udp + 1;
	tunnel->payload = length - sizeof(*udp);
	tunnel->outer_bytes += sizeof(*udp);
	return UNDECIDED;
}

/* The inner header: that it is one, that it is all there, and whose address it has. */
static __always_inline int check_inner(struct tunnel *tunnel)
{
	struct address address = {};

	if (tunnel->inner_v6) {
		struct ipv6hdr *ip = tunnel->inner;
		__u64 *words = tunnel->inner + offsetof(struct ipv6hdr, daddr);

		if ((void *)(ip + 1) > tunnel->end || ip->version != 6 ||
		    bpf_ntohs(ip->payload_len) + sizeof(*ip) > tunnel->payload)
			return PASS_MALFORMED;
		address.hi = words[0];
		address.lo = words[1];
		tunnel->inner_ecn = traffic_class(ip) & ECN_MASK;
		if (!address.hi && (__u32)address.lo == MAPPED_IPV4)
			return PASS_NOT_VIP; /* no IPv6 header has such an address by right; it is not the IPv4 VIP */
	} else {
		struct iphdr *ip = tunnel->inner;

		if ((void *)(ip + 1) > tunnel->end || ip->version != 4 || ip->ihl < 5 ||
		    bpf_ntohs(ip->tot_len) < ip->ihl * 4 || bpf_ntohs(ip->tot_len) > tunnel->payload)
			return PASS_MALFORMED;
		address.lo = (__u64)ip->daddr << 32 | MAPPED_IPV4;
		tunnel->inner_ecn = ip->tos & ECN_MASK;
	}
	return decap_vips.lookup(&address) ? UNDECIDED : PASS_NOT_VIP;
}

/* Finds the two IP headers. The answer is UNDECIDED if the outer one is to be taken off. */
static __always_inline int parse(struct xdp_md *ctx, struct tunnel *tunnel)
{
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	__u8 protocol = 0;
	__be16 type;
	int i, reason;

	tunnel->end = (void *)(long)ctx->data_end;
	if ((void *)(eth + 1) > tunnel->end)
		return PASS_NOT_TUNNEL;
	type = eth->h_proto;
	tunnel->outer = eth + 1;
#pragma unroll
	for (i = 0; i < MAX_TAGS; i++) {
		__be16 *next = tunnel->outer + sizeof(struct tag) - sizeof(*next);

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(next + 1) > tunnel->end)
			return PASS_NOT_TUNNEL;
		type = *next;
		tunnel->outer += sizeof(struct tag);
		tunnel->tag_bytes += sizeof(struct tag);
	}
	if (type == bpf_htons(ETH_P_IP))
		reason = outer_ipv4(tunnel, &protocol);
	else if (type == bpf_htons(ETH_P_IPV6))
		reason = outer_ipv6(tunnel, &protocol);
	else
		reason = PASS_NOT_TUNNEL;
	if (reason != UNDECIDED)
		return reason;
	tunnel->inner = tunnel->outer + tunnel->outer_bytes;
	tunnel->inner_v6 = protocol == IPPROTO_IPV6;
	if (protocol == IPPROTO_UDP && (reason = strip_udp(tunnel)) != UNDECIDED)
		return reason;
	/* The lengths above are compared with each other; this one with what has arrived. */
	if (tunnel->inner + tunnel->payload > tunnel->end)
		return PASS_MALFORMED;
	return check_inner(tunnel);
}

/* Gives a packet another ECN field, by RFC 1624 without summing up its header. */
static __always_inline void set_ecn(void *header, int v6, __u8 ecn)
{
	if (v6) {
		__u8 *second = header + 1; /* the class's lower half is this byte's upper one */

		*second = (*second & ~(ECN_MASK << 4)) | ecn << 4;
	} else {
		struct iphdr *ip = header;
		__u8 new = (ip->tos & ~ECN_MASK) | ecn;
		/* The field is the second byte of its word, which is the upper one in little-endian order. */
		__u32 sum = (__u16)~ip->check + (__u16) ~(ip->tos << 8) + (new << 8);

		ip->tos = new;
		ip->check = ~fold(sum);
	}
}

/* What the inner packet's ECN field becomes where it says that its sender understands it (RFC 6040, figure 4). */
static __always_inline __u8 joined_ecn(const struct tunnel *tunnel)
{
	if (tunnel->outer_ecn == ECN_CE || (tunnel->outer_ecn == ECN_ECT1 && tunnel->inner_ecn == ECN_ECT0))
		return tunnel->outer_ecn;
	return tunnel->inner_ecn;
}

/* What the verifier asks here was all checked before, so nothing is lost by the ways out. */
static __always_inline int strip(struct xdp_md *ctx, const struct tunnel *tunnel)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct link_layer saved, *place = data;
	__u32 tag_bytes = tunnel->tag_bytes;
	__be16 *type;

	if ((void *)(place + 1) > end)
		return PASS_MALFORMED;
	/* Saved as a whole: what is behind the tags there is not used. */
	saved = *place;
	if (bpf_xdp_adjust_head(ctx, tunnel->outer_bytes))
		return PASS_MALFORMED;
	place = data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(place + 1) > end)
		return PASS_MALFORMED;
	__builtin_memcpy(place->macs, saved.macs, sizeof(saved.macs));
	if (tag_bytes)
		place->tags[0] = saved.tags[0];
	if (tag_bytes > sizeof(struct tag))
		place->tags[1] = saved.tags[1];
	type = data + sizeof(saved.macs) + (tag_bytes & 12);
	if ((void *)(type + 1) + sizeof(struct iphdr) > end)
		return PASS_MALFORMED;
	*type = tunnel->inner_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (joined_ecn(tunnel) != tunnel->inner_ecn)
		set_ecn(type + 1, tunnel->inner_v6, joined_ecn(tunnel));
	return DECAP_IPV4_IN_IPV4 + 4 * tunnel->gue + 2 * tunnel->outer_v6 + tunnel->inner_v6;
}

int decap(struct xdp_md *ctx)
{
	struct tunnel tunnel = {};
	int reason = parse(ctx, &tunnel);
	__u32 key;
	__u64 *counter;

	if (reason == UNDECIDED)
		reason = tunnel.outer_ecn == ECN_CE && !tunnel.inner_ecn ? DROP_ECN : strip(ctx, &tunnel);
	key = reason;
	counter = decap_reasons.lookup(&key);
	if (counter)
		(*counter)++;
	return reason == DROP_ECN ? XDP_DROP : XDP_PASS;
}
