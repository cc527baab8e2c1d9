/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What connections through the gateway tell of the health of their backend: whether it answers handshakes, how soon, and
 * whether the first data of a client is answered by data. Seen in modes by which answers come back, and counted for the
 * backends that are to be watched only.
 *
 * A connection has a place, which another one may take: then it is not followed further. A SYN that was sent again tells
 * no time, as nobody knows which one was answered (Karn's rule, RFC 6298 §3).
 */

#if WITH_HANDSHAKES

#define STAGE_BITS 3
#define STAGE_MASK 7
#define TIME_MASK 0x1fffffff /* microseconds, of which so many are kept: nine minutes */

enum stage {
	STAGE_NONE,
	STAGE_SYN,
	STAGE_SYN_AGAIN,
	STAGE_ANSWERED,
	STAGE_REQUESTED,
};

static __always_inline __u32 microseconds(void)
{
	return bpf_ktime_get_ns() / 1000 & TIME_MASK;
}

/* Counts the time since a stage began; the first bucket is for less than 2^shift microseconds. */
static __always_inline void count_time(__u32 *times, __u32 stage, int shift)
{
	__u32 bucket = 0, left = ((microseconds() - (stage >> STAGE_BITS)) & TIME_MASK) >> shift;
	int i;

#pragma unroll
	for (i = 0; i < TIME_BUCKETS - 1; i++)
		bucket += left >> i != 0;
	times[bucket & (TIME_BUCKETS - 1)]++;
}

/* A stage that begins now. */
static __always_inline __u32 begin(enum stage stage)
{
	return microseconds() << STAGE_BITS | stage;
}

/* Takes note of a segment of a connection between a client and a backend. */
static __always_inline void note_handshake(const struct packet *packet, const struct backend *backend, __u32 number,
					   const struct endpoint *client, enum way way)
{
	struct tcphdr *tcp = tcp_of(packet);
	__u32 watch = *(volatile const __u16 *)&backend->watch, place, tag, stage, *found;
	struct handshakes *seen;
	int data;
	__u64 hash;

	if (!watch || !tcp || packet->kind != PLAIN)
		return;
	hash = flow_hash(client, (__u16)number);
	place = hash & (HANDSHAKE_PLACES - 1);
	seen = handshakes.lookup(&watch);
	found = begun.lookup(&place);
	if (!seen || !found)
		return;
	tag = hash >> 32;
	stage = found[0] == tag ? found[1] & STAGE_MASK : STAGE_NONE;
	data = ip_length(packet) > packet->header + tcp->doff * 4;
	if (way == WAY_TO_VIP) {
		if (tcp->syn && !tcp->ack) {
			if (stage == STAGE_SYN || stage == STAGE_SYN_AGAIN) {
				seen->repeated++;
				found[1] = (found[1] & ~STAGE_MASK) | STAGE_SYN_AGAIN;
				return;
			}
			seen->begun++;
			found[0] = tag;
			found[1] = begin(STAGE_SYN);
		} else if (stage == STAGE_ANSWERED && data) {
			seen->requests++;
			found[1] = begin(STAGE_REQUESTED);
		}
		return;
	}
	if (stage == STAGE_SYN || stage == STAGE_SYN_AGAIN) {
		if (tcp->syn && tcp->ack) {
			seen->answered++;
			if (stage == STAGE_SYN)
				count_time(seen->times, found[1], TIME_SHIFT);
			found[1] = STAGE_ANSWERED;
		} else if (tcp->rst) {
			seen->refused++;
			found[1] = STAGE_NONE;
		}
	} else if (stage && (data || tcp->rst || tcp->fin)) {
		if (stage == STAGE_REQUESTED) {
			seen->replies++;
			if (data)
				count_time(seen->reply_times, found[1], REPLY_SHIFT);
		}
		found[1] = STAGE_NONE;
	}
}

#endif
