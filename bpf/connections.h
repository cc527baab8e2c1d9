/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connections whose answers cannot be told apart by their source alone: fullnat's, which come back to an address and port
 * of the gateway's pool, and those of a server that serves several VIPs by nat. Each server has a pool of places. The place
 * of a connection is one of a few that its client hashes to; so it is found again without a second table, and as its
 * number is the port that fullnat sends from, an answer finds it by looking there.
 */

#define CLAIMED (0xffffffffULL) /* of no backend: a place that is being filled */

static __always_inline __u64 connection_state(__u32 state, __u32 now, __u32 backend)
{
	return (__u64)state << 56 | (__u64)(now & TICK_MASK) << 32 | backend;
}

/* The backend of a connection that still counts: it is there, and its VIP allows so long a silence. Sets its number. */
static __always_inline struct backend *living_backend(__u64 state, __u32 now, __u32 *number)
{
	struct backend *backend = state ? still_there((__u32)state, -1, number) : NULL;
	struct vip *vip;
	__u32 vip_number;

	if (!backend)
		return NULL;
	vip_number = backend->vip;
	vip = vips.lookup(&vip_number);
	return vip && !is_over(state >> 32, now, *(volatile const __u64 *)&vip->idle) ? backend : NULL;
}

static __always_inline __u64 pool_of(__u32 backend)
{
	struct pool *pool = pools.lookup(&backend);

	return pool ? *(volatile __u64 *)&pool->word : 0;
}

static __always_inline struct connection *connection_at(__u64 pool, __u32 place)
{
	__u32 number = (__u32)pool + place;

	return place < pool >> 32 ? connections.lookup(&number) : NULL;
}

/* Takes note of the packet. */
static __always_inline void touch(const struct packet *packet, struct connection *connection, __u32 now)
{
	__u64 old = *(volatile __u64 *)&connection->state;
	__u64 new = connection_state(next_state(packet, old >> 56), now, old);

	if (new != old)
		__sync_val_compare_and_swap(&connection->state, old, new);
}

static __always_inline int is_client(const struct connection *connection, const struct endpoint *client)
{
	return connection->client_hi == client->hi && connection->client_lo == client->lo &&
	       connection->client_port == client->port;
}

/*
 * What the places are made from where a connection to a backend may be. An answer by fullnat tells the place; one by nat tells
 * the client, who has to be enough to find it.
 */
static __always_inline __u64 search_hash(const struct packet *packet, const struct backend *backend)
{
	return IS(backend, FULLNAT) ? flow_tag(packet->hash, backend->vip) : flow_hash(&packet->from, 0);
}

/* The places in turn, each so many after the one before that neighbours do not meet again (double hashing). */
static __always_inline __u32 place_at(__u64 pool, __u64 hash, __u32 probe)
{
	return ((hash >> 32) + probe * ((__u32)hash | 1)) & ((pool >> 32) - 1);
}

/* The place of the packet's connection to a backend, if it is known; else RARE. Sets *place. */
static __always_inline int find_place(const struct packet *packet, const struct vip *vip, const struct backend *backend,
				      __u32 number, __u32 *place, struct connection **found)
{
	__u64 hash = search_hash(packet, backend);
	__u32 now = ticks_now(), record = recorded(backend, number), i, at;
	__u64 pool = pool_of(number), idle = *(volatile const __u64 *)&vip->idle, state;
	struct connection *connection;

	for (i = 0; i < POOL_PROBES; i++) {
		at = place_at(pool, hash, i);
		connection = connection_at(pool, at);
		if (!connection)
			return DROP_INCONSISTENT;
		state = *(volatile __u64 *)&connection->state;
		if ((__u32)state == record && is_client(connection, &packet->from) &&
		    connection->service_port == packet->to.port && !is_over(state >> 32, now, idle)) {
			*place = at;
			*found = connection;
			touch(packet, connection, now);
			return FORWARDED;
		}
	}
	return RARE;
}

/* How ready a place is to be given to another connection; 0: not at all. */
static __always_inline __u32 readiness(__u64 state, __u32 now)
{
	__u32 number;

	if (!state)
		return 0xffffffff;
	if ((__u32)state == CLAIMED ? is_over(state >> 32, now, BEGUN_TICKS) : !living_backend(state, now, &number))
		return 0xfffffffe;
	/* One that is no more than a SYN gives way. */
	return state >> 56 == FLOW_BEGUN ? 1 + ((now - (state >> 32)) & TICK_MASK) : 0;
}

/* A new place for a connection that begins. Sets *place. */
static __always_inline int take_place(const struct packet *packet, const struct backend *backend, __u32 number,
				      __u32 *place, struct connection **found)
{
	__u64 hash = search_hash(packet, backend);
	__u32 now = ticks_now(), record = recorded(backend, number);
	__u32 best = 0, most = 0, ready, i, at;
	struct connection *connection;
	__u64 pool = pool_of(number), state, free_state = 0;

	for (i = 0; i < POOL_PROBES; i++) {
		at = place_at(pool, hash, i);
		connection = connection_at(pool, at);
		if (!connection)
			return DROP_INCONSISTENT;
		state = *(volatile __u64 *)&connection->state;
		ready = readiness(state, now);
		/* Lives, and is another VIP's: its answers could not be told apart. */
		if (ready < 0xfffffffe && (backend->flags & BACKEND_SHARED) && is_client(connection, &packet->from))
			return DROP_NO_PORT;
		if (ready > most) {
			most = ready;
			best = at;
			free_state = state;
		}
	}
	/* By nat a connection may be older than the need to record it. */
	if (packet->kind == ICMP_ERROR || (IS(backend, FULLNAT) && packet->protocol == IPPROTO_TCP && !begins(packet)))
		return DROP_NO_CONNECTION;
	connection = connection_at(pool, best);
	if (!most || !connection ||
	    __sync_val_compare_and_swap(&connection->state, free_state, connection_state(FLOW_BEGUN, now, CLAIMED)) !=
		    free_state)
		return DROP_NO_PORT;
	connection->client_hi = packet->from.hi;
	connection->client_lo = packet->from.lo;
	connection->client_port = packet->from.port;
	connection->service_port = packet->to.port;
	*(volatile __u64 *)&connection->state = connection_state(FLOW_BEGUN, now, record);
	count_event(CONNECTION_MADE);
	*place = best;
	*found = connection;
	return FORWARDED;
}

/* The address and port that a place stands for. */
static __always_inline void source_of(const struct backend *backend, __u32 place, struct endpoint *source)
{
	__u32 last = bpf_ntohl(backend->source_lo >> 32) + place / POOL_PORTS;

	source->hi = backend->source_hi;
	source->lo = (__u64)bpf_htonl(last) << 32 | (__u32)backend->source_lo;
	source->port = bpf_htons(POOL_PORT + place % POOL_PORTS);
}

/* The connection that an answer belongs to, by fullnat also its place, and its backend instead of another of its server. */
static __always_inline struct connection *find_answered(const struct packet *packet, struct backend **backend,
							__u32 *number, __u32 *at)
{
	__u32 now = ticks_now(), i, place, owner_number;
	__u64 pool = pool_of(*number), hash;
	struct connection *connection;
	struct backend *owner;

	if (!pool)
		return NULL;
	if ((*backend)->flags & BACKEND_SHARED) {
		hash = flow_hash(&packet->to, 0);
		for (i = 0; i < POOL_PROBES; i++) {
			connection = connection_at(pool, place_at(pool, hash, i));
			if (!connection || !is_client(connection, &packet->to))
				continue;
			owner = living_backend(*(volatile __u64 *)&connection->state, now, &owner_number);
			if (owner)
				goto found;
		}
		return NULL;
	}
	if (packet->to.hi != (*backend)->source_hi || (__u32)packet->to.lo != (__u32)(*backend)->source_lo)
		return NULL;
	place = bpf_ntohl(packet->to.lo >> 32) - bpf_ntohl((*backend)->source_lo >> 32);
	if (place >= pool >> 32) /* of addresses, to begin with; so that there is no overflow */
		return NULL;
	place = place * POOL_PORTS + bpf_ntohs(packet->to.port) - POOL_PORT;
	*at = place;
	if (bpf_ntohs(packet->to.port) < POOL_PORT || bpf_ntohs(packet->to.port) >= POOL_PORT + POOL_PORTS)
		return NULL;
	connection = connection_at(pool, place);
	owner = connection ? living_backend(*(volatile __u64 *)&connection->state, now, &owner_number) : NULL;
	if (!owner)
		return NULL;
found:
	touch(packet, connection, now);
	*backend = owner;
	*number = owner_number;
	return connection;
}
