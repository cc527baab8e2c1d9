/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Every packet is counted once: by its backend, or by the reason why it is nobody's. Per CPU, so without atomics. */

static __always_inline void count_traffic(__u32 backend, __u64 length, enum way way)
{
	struct traffic *counters = traffic.lookup(&backend);

	if (!counters)
		return;
	if (way == WAY_TO_VIP) {
		counters->packets++;
		counters->bytes += length;
	} else {
		counters->packets_back++;
		counters->bytes_back += length;
	}
}

static __always_inline int count_reason(__u32 reason)
{
	__u64 *counter = reasons.lookup(&reason);

	if (counter)
		(*counter)++;
	return reason < ANSWER_ECHO ? XDP_PASS : reason < DROP_MALFORMED ? XDP_TX : XDP_DROP;
}

static __always_inline void count_event(__u32 event)
{
	__u64 *counter = events.lookup(&event);

	if (counter)
		(*counter)++;
}
