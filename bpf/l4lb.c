/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet's way, in order. A stage returns FORWARDED to go on or the reason why the packet goes no further with us;
 * the exit, in l4lb(), counts each packet once.
 *
 * The licence declared to the kernel is the GPL, since helpers such as bpf_fib_lookup() are for GPL-compatible programs
 * only (bcc declares "GPL" where nothing else is said); either licence above may be chosen for the source.
 *
 * Compiled for what is configured: WITH_NAT and WITH_DSR are 1 or 0.
 */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define AF_INET 2
#define IP_OFFSET 0x1fff
#define IP_MF 0x2000

#include "abi.h"
#include "maps.h"
#include "abi_check.h"
#include "stats.h"
#include "parse.h"
#include "lookup.h"
#include "flows.h"
#include "select.h"
#include "forward.h"
#include "nat.h"
#include "route.h"

/* From a client to a VIP: the client's address and port choose the backend. */
static __always_inline int to_backend(struct packet *packet, struct way_out *out, const struct vip *vip,
				      __u32 vip_number)
{
	struct endpoint client = {.lo = mapped(packet->ip->saddr), .port = packet->source_port};
	struct backend *backend = NULL;
	int reason, nat;

	if ((reason = check_addressed_to_us(packet, out)) || (reason = check_ours(packet)))
		return reason;
	if ((reason = choose(packet, vip, vip_number, &client, &out->backend, &backend)))
		return reason;
	out->next_hop = *(volatile __u64 *)&backend->next_hop;
	if (!out->next_hop)
		return DROP_NO_NEXT_HOP;
	nat = WITH_NAT && (!WITH_DSR || backend->mode == MODE_NAT);
	if (nat && (reason = check_ttl(packet)))
		return reason;
	if ((reason = check_way_out(packet, out)))
		return reason;
	if (nat)
		nat_to_backend(packet, backend);
	write_macs(packet, out);
	return FORWARDED;
}

#if WITH_NAT
/* From a backend to a client: it leaves as the VIP's. */
static __always_inline int to_client(struct xdp_md *ctx, struct packet *packet, struct way_out *out,
				     const struct backend *backend)
{
	__u32 number = backend->vip;
	struct vip *vip = vips.lookup(&number);
	int reason;

	if (!vip)
		return DROP_INCONSISTENT;
	if ((reason = check_addressed_to_us(packet, out)) || (reason = check_ours(packet)) ||
	    (reason = check_ttl(packet)))
		return reason;
	reason = route_to_client(ctx, packet, vip->endpoint.lo >> 32, &out->next_hop);
	if (reason == PASS_RESOLVE_NEIGHBOUR)
		empty(packet);
	if (reason || (reason = check_way_out(packet, out)))
		return reason;
	nat_to_client(packet, backend, vip);
	write_macs(packet, out);
	return FORWARDED;
}
#endif

/* Rewrites the packet if it is ours. What is not ours is judged by nothing but whose it is. */
static __always_inline int handle(struct xdp_md *ctx, struct packet *packet, struct way_out *out)
{
	struct endpoint key = {};
	struct vip *vip;
	__u32 vip_number = 0;
	int reason = parse(ctx, packet);

	if (reason)
		return reason;
	out->ingress = ctx->ingress_ifindex;
	key.protocol = packet->protocol;
	key.lo = mapped(packet->ip->daddr);
	key.port = packet->dest_port;
	vip = find_vip(&key, &vip_number);
	if (vip) {
		out->way = WAY_TO_VIP;
		return to_backend(packet, out, vip, vip_number);
	}
#if WITH_NAT
	key.lo = mapped(packet->ip->saddr);
	key.port = packet->source_port;
	struct backend *backend = find_answering_backend(&key, &out->backend);

	if (backend) {
		out->way = WAY_FROM_BACKEND;
		return to_client(ctx, packet, out, backend);
	}
#endif
	return PASS_NOT_VIP;
}

int l4lb(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct way_out out = {};
	int reason = handle(ctx, &packet, &out);

	return reason == FORWARDED ? transmit(&packet, &out) : count_reason(reason);
}
