/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet's way, in order. A stage returns FORWARDED to go on or the reason why the packet goes no further with us;
 * the exit, in l4lb(), counts each packet once.
 *
 * The licence declared to the kernel is the GPL, since helpers such as bpf_fib_lookup() are for GPL-compatible programs
 * only (bcc declares "GPL" where nothing else is said); either licence above may be chosen for the source.
 *
 * Compiled for what is configured, by switches that are 1 or 0 (l4lb/datapath/layout.py says what sets them):
 *   modes:      WITH_NAT, WITH_DSR, WITH_FULLNAT, WITH_IPIP, WITH_GUE
 *   packets:    WITH_IPV6, WITH_VLAN, WITH_MSS
 *   VIPs:       WITH_RANGES (several ports), WITH_SOURCE_HASH, WITH_TRACKING (schedulers that do not hash),
 *               WITH_SHARED (nat backends that serve several VIPs), WITH_WATCHING (of handshakes)
 *   comparison: WITH_LRU, for measurements only
 */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define offsetof(type, member) __builtin_offsetof(type, member)
#define AF_INET 2
#define AF_INET6 10
#define WITH_ANSWERS (WITH_NAT || WITH_FULLNAT)
#define WITH_CONNECTIONS (WITH_FULLNAT || WITH_SHARED)
#define WITH_HANDSHAKES (WITH_WATCHING && WITH_ANSWERS)
#define MODES (WITH_NAT + WITH_DSR + WITH_FULLNAT + WITH_IPIP + WITH_GUE)
/* Whether a backend is of a mode; no question if there is no other. */
#define IS(record, name) (WITH_##name && (MODES == 1 || (record)->mode == MODE_##name))

#include "abi.h"
#include "maps.h"
#include "abi_check.h"
#include "stats.h"
#include "parse.h"
#include "forward.h"
#include "lookup.h"
#include "flows.h"
#include "select.h"
#include "track.h"
#include "lru.h"
#include "choose.h"
#include "fragments.h"
#include "connections.h"
#include "nat.h"
#include "route.h"
#include "tunnel.h"
#include "answer.h"
#include "mss.h"
#include "handshakes.h"

/* Whose packet it is. */
struct owner {
	struct vip *vip;
	struct backend *backend;
	struct connection *connection; /* if it takes one to know */
	__u32 place; /* of the connection, in the server's pool */
};

static __always_inline int check_host(const struct packet *packet, struct way_out *out)
{
	int reason = check_addressed_to_us(packet, out);

	return reason ? reason : check_ours(packet);
}

#if WITH_FULLNAT
/* By fullnat the client, or what it is known by, is where the connection has its place. */
static __always_inline int identify_place(const struct packet *packet, const struct way_out *out, struct owner *owner)
{
	__s64 place = recall_place(packet, out->way);

	if (place < 0)
		return out->way == WAY_TO_VIP ? DROP_FRAGMENT : PASS_FRAGMENT;
	owner->place = place;
	if (out->way == WAY_TO_VIP)
		return FORWARDED;
	owner->connection = connection_at(pool_of(out->backend), place);
	if (!owner->connection || (__u32)owner->connection->state != recorded(owner->backend, out->backend))
		return PASS_FRAGMENT;
	return FORWARDED;
}
#endif

/* A later fragment belongs to whom the first one of its datagram did, if that was ours. */
static __always_inline int identify_fragment(struct packet *packet, struct way_out *out, struct owner *owner)
{
	int reason;

	out->way = WAY_TO_VIP;
	owner->backend = recall_fragment(packet, out->way, &out->backend);
#if WITH_ANSWERS
	if (!owner->backend) {
		out->way = WAY_FROM_BACKEND;
		owner->backend = recall_fragment(packet, out->way, &out->backend);
	}
#endif
	if (owner->backend) {
		__u32 number = owner->backend->vip;

		owner->vip = vips.lookup(&number);
		packet->hash = flow_hash(&packet->from, 0);
		if (!owner->vip)
			return DROP_INCONSISTENT;
		reason = check_host(packet, out);
#if WITH_FULLNAT
		if (!reason && IS(owner->backend, FULLNAT))
			reason = identify_place(packet, out, owner);
#endif
		return reason;
	}
	if (!is_flow(packet->protocol) || !find_address(&packet->to))
		return PASS_FRAGMENT;
	reason = check_host(packet, out);
	return reason ? reason : DROP_FRAGMENT;
}

/* Finds VIP and backend of a packet. What is not ours is judged by nothing but whose it is. */
static __always_inline int identify(struct packet *packet, struct way_out *out, struct owner *owner, int rare)
{
	__u32 number = 0;
	int reason;

	if (rare && packet->kind == LATER_FRAGMENT)
		return identify_fragment(packet, out, owner);
	owner->vip = find_vip(&packet->to, &number);
	if (owner->vip) {
		out->way = WAY_TO_VIP;
		if ((reason = check_host(packet, out)))
			return reason;
		reason = choose(packet, owner->vip, number, &out->backend, &owner->backend);
	} else {
#if WITH_ANSWERS
		out->way = WAY_FROM_BACKEND;
		owner->backend = find_answering_backend(&packet->from, &out->backend);
		if (!owner->backend)
			return PASS_NOT_VIP;
#if WITH_CONNECTIONS
		if (IS(owner->backend, FULLNAT) || (owner->backend->flags & BACKEND_SHARED)) {
			owner->connection = find_answered(packet, &owner->backend, &out->backend, &owner->place);
			if (!owner->connection && IS(owner->backend, FULLNAT))
				return PASS_NOT_VIP;
		}
#endif
		number = owner->backend->vip;
		owner->vip = vips.lookup(&number);
		if (!owner->vip)
			return DROP_INCONSISTENT;
#if WITH_SHARED
		/* By nat, one without a record is older than the second of the VIPs: the first one's, if that has one port. */
		if ((owner->backend->flags & BACKEND_SHARED) && !owner->connection && owner->vip->last_port)
			return (reason = check_host(packet, out)) ? reason : DROP_NO_CONNECTION;
#endif
		if (owner->vip->last_port && !owner->backend->port &&
		    (bpf_ntohs(packet->from.port) < bpf_ntohs(owner->vip->endpoint.port) ||
		     bpf_ntohs(packet->from.port) > owner->vip->last_port))
			return PASS_NOT_VIP;
		reason = check_host(packet, out);
#else
		return PASS_NOT_VIP;
#endif
	}
	if (rare && reason == FORWARDED && packet->kind == FIRST_FRAGMENT) {
		remember_fragment(packet, out->way, owner->backend, out->backend);
#if WITH_FULLNAT
		if (out->way == WAY_FROM_BACKEND && IS(owner->backend, FULLNAT))
			remember_place(packet, out->way, owner->place);
#endif
	}
	return reason;
}

static __always_inline int finish(struct xdp_md *ctx, struct packet *packet, const struct way_out *out)
{
	__be16 type = packet->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);

	if (!WITH_VLAN) {
		write_macs(packet->eth, out);
		return FORWARDED;
	}
	return reframe(ctx, packet, out, 0, type) ? FORWARDED : DROP_NO_HEADROOM;
}

/* From a client to a backend. */
static __always_inline int to_backend(struct xdp_md *ctx, struct packet *packet, struct way_out *out,
				      struct owner *owner, int rare)
{
	struct backend *backend = owner->backend;
	int reason;

	out->next_hop = *(volatile __u64 *)&backend->next_hop;
	if (!out->next_hop)
		return DROP_NO_NEXT_HOP;
	if (!IS(backend, DSR) && ttl_of(packet) <= 1)
		return PASS_TTL_EXPIRED;
	if (ip_length(packet) > *(volatile __u16 *)&backend->room)
		return rare ? answer_too_big(ctx, packet, backend->room) : RARE;
	if ((reason = find_way_out(out)))
		return reason;
#if WITH_MSS
	if (!rare)
		clamp_mss(packet, *(volatile __u16 *)&owner->vip->mss);
#endif
#if WITH_CONNECTIONS
	if (packet->kind != LATER_FRAGMENT && (IS(backend, FULLNAT) || (backend->flags & BACKEND_SHARED))) {
		reason = find_place(packet, owner->vip, backend, out->backend, &owner->place, &owner->connection);
		/* A SYN has been clamped by then. */
		if (rare && reason == RARE)
			reason = take_place(packet, backend, out->backend, &owner->place, &owner->connection);
		if (rare && reason == DROP_NO_CONNECTION && packet->protocol == IPPROTO_TCP)
			return reset(ctx, packet, ANSWER_RESET, DROP_NO_CONNECTION);
		if (reason)
			return reason;
#if WITH_FULLNAT
		if (rare && packet->kind == FIRST_FRAGMENT && IS(backend, FULLNAT))
			remember_place(packet, out->way, owner->place);
#endif
	}
#endif
#if WITH_HANDSHAKES
	note_handshake(packet, backend, out->backend, &packet->from, WAY_TO_VIP);
#endif
#if WITH_ANSWERS
	if (IS(backend, NAT) || IS(backend, FULLNAT)) {
		struct translation new = {.address_delta = backend->address_delta, .new_to = 1};

		new.to.hi = backend->hi;
		new.to.lo = backend->lo;
		new.to.port = backend->port ? backend->port : packet->to.port;
#if WITH_FULLNAT
		if (IS(backend, FULLNAT)) {
			source_of(backend, owner->place, &new.from);
			new.new_from = new.any_source = 1;
			new.address_delta += (__u16)~address_sum(packet->from.hi, packet->from.lo) +
					     address_sum(new.from.hi, new.from.lo);
		}
#endif
		translate(packet, &new);
		return finish(ctx, packet, out);
	}
#endif
#if WITH_IPIP || WITH_GUE
	if (IS(backend, IPIP) || IS(backend, GUE))
		return encapsulate(ctx, packet, out, backend);
#endif
	return finish(ctx, packet, out);
}

#if WITH_ANSWERS
/* From a backend to a client: it leaves as the VIP's. */
static __always_inline int to_client(struct xdp_md *ctx, struct packet *packet, struct way_out *out,
				     struct owner *owner, int rare)
{
	const struct backend *backend = owner->backend;
	struct vip *vip = owner->vip;
	struct translation new = {.new_from = 1};
	struct way_back way = {};
	struct endpoint destination = packet->to;
	__u32 length = ip_length(packet), mtu;
	int reason;

	if (ttl_of(packet) <= 1)
		return PASS_TTL_EXPIRED;
	new.from.hi = vip->endpoint.hi;
	new.from.lo = vip->endpoint.lo;
	new.from.port = backend->port ? vip->endpoint.port : packet->from.port;
	new.address_delta = (__u16)~backend->address_delta;
#if WITH_CONNECTIONS
	if (owner->connection)
		new.from.port = owner->connection->service_port;
#endif
#if WITH_FULLNAT
	if (IS(backend, FULLNAT) && owner->connection) {
		new.to.hi = owner->connection->client_hi;
		new.to.lo = owner->connection->client_lo;
		new.to.port = owner->connection->client_port;
		new.new_to = 1;
		new.address_delta +=
			(__u16)~address_sum(packet->to.hi, packet->to.lo) + address_sum(new.to.hi, new.to.lo);
		destination = new.to;
	}
#endif
	reason = route_to_client(ctx, out->ingress, packet, &new.from, &destination, &way);
	if (reason == PASS_RESOLVE_NEIGHBOUR)
		empty(packet, &destination);
	if (reason)
		return reason;
	out->next_hop = way.next_hop;
	if ((reason = find_way_out(out)))
		return reason;
	mtu = out->egress_port >> 48;
	if (way.mtu && way.mtu < mtu)
		mtu = way.mtu;
	if (length > mtu) {
		/* By fullnat the kernel would take it for its own. */
		if (IS(backend, FULLNAT))
			return rare ? answer_too_big(ctx, packet, mtu) : RARE;
		return may_fragment(packet) ? DROP_TOO_BIG : PASS_TOO_BIG;
	}
#if WITH_MSS
	if (!rare)
		clamp_mss(packet, *(volatile __u16 *)&vip->mss);
#endif
#if WITH_TRACKING
	note_answer(packet, vip, backend->vip);
#endif
#if WITH_HANDSHAKES
	note_handshake(packet, backend, out->backend, &destination, WAY_FROM_BACKEND);
#endif
	translate(packet, &new);
	return finish(ctx, packet, out);
}
#endif

/* Rewrites the packet if it is ours. */
static __always_inline int handle(struct xdp_md *ctx, struct packet *packet, struct way_out *out, int rare)
{
	struct owner owner = {};
	int reason = parse(ctx, packet, rare);

	if (reason)
		return reason;
	if (rare && packet->kind == ECHO_REQUEST) {
		if (answers_pings() && find_address(&packet->to)) {
			reason = check_host(packet, out);
			return reason ? reason : answer_echo(packet);
		}
		return PASS_NOT_TCP_UDP;
	}
	reason = identify(packet, out, &owner, rare);
	if (reason == DROP_NO_BACKEND && owner.vip && (*(volatile __u8 *)&owner.vip->flags & VIP_REFUSES))
		return rare ? refuse(ctx, packet) : RARE;
	if (reason)
		return reason;
#if WITH_ANSWERS
	if (out->way == WAY_FROM_BACKEND)
		return to_client(ctx, packet, out, &owner, rare);
#endif
	return to_backend(ctx, packet, out, &owner, rare);
}

BPF_TABLE_PINNED("prog", __u32, __u32, stages, 2, STAGES, 0);

static __always_inline int run(struct xdp_md *ctx, struct packet *packet, int rare)
{
	struct way_out out = {.ingress = ctx->ingress_ifindex};
	int reason = handle(ctx, packet, &out, rare);

	if (!rare && reason == RARE)
		return RARE;
	return reason == FORWARDED ? transmit(packet, &out) : count_reason(reason);
}

int l4lb(struct xdp_md *ctx)
{
	struct packet packet = {};
	int action = run(ctx, &packet, 0);

	if (action != RARE)
		return action;
	if (WITH_IPV6 && packet.v6)
		stages.call(ctx, 1);
	else
		stages.call(ctx, 0);
	return count_reason(DROP_INCONSISTENT);
}

/*
 * Fragments, ICMP, IPv6 extension headers, what is too long for its way, connections that begin where they are recorded: all
 * that would only be in the way above. A program for each family, so that the verifier has half as much to follow in each.
 */
int l4lb_rare4(struct xdp_md *ctx)
{
	struct packet packet = {};

	return run(ctx, &packet, 4);
}

#if WITH_IPV6
int l4lb_rare6(struct xdp_md *ctx)
{
	struct packet packet = {};

	return run(ctx, &packet, 6);
}
#endif

#if WITH_TRACKING
int l4lb_sweep(struct xdp_md *ctx)
{
	return sweep(ctx);
}
#endif
