/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps, pinned under PINS. Everything the control plane writes is an array that it maps into its memory; none but
 * the counters, the cache of routes and the table of interfaces is written or looked up in any other way. Arrays, since
 * a look-up in one compiles to an addition, where a hash map's costs a call and, cold, several cache misses.
 *
 * The sizes (MAX_*, *_LINES) come from the control plane as -D switches; l4lb/datapath/layout.py holds their defaults.
 */

/* Where traffic for each VIP goes: regions of these lines, one per VIP. Two bytes a slot while every number fits beside the flag. */
#if MAX_BACKENDS <= 32768
typedef __u16 slot_t;
#else
typedef __u32 slot_t;
#endif
#define SLOTS_PER_LINE (64 / sizeof(slot_t))
#define SLOT_FLAG ((slot_t)1 << (8 * sizeof(slot_t) - 1))
#define NO_BACKEND ((slot_t)(SLOT_FLAG - 1))

struct slot_line {
	slot_t slot[SLOTS_PER_LINE];
};

#define SHARED_ARRAY(value, name, entries)                                                                             \
	BPF_TABLE_PINNED("array", __u32, value, name, entries, PINS "/" #name, BPF_F_MMAPABLE)

SHARED_ARRAY(struct index_line, service_index, INDEX_LINES);
SHARED_ARRAY(__u64, service_filter, FILTER_WORDS);
SHARED_ARRAY(struct vip, vips, MAX_VIPS);
SHARED_ARRAY(struct address, addresses, MAX_VIPS);
SHARED_ARRAY(struct range_line, port_ranges, RANGE_LINES);
SHARED_ARRAY(struct slot_line, slots, SLOT_LINES);
SHARED_ARRAY(struct backend, backends, MAX_BACKENDS);
SHARED_ARRAY(struct pool, pools, MAX_BACKENDS);
SHARED_ARRAY(struct port, ports, MAX_INTERFACES); /* by interface index */
SHARED_ARRAY(struct control, control, 1);
SHARED_ARRAY(struct connection, connections, MAX_CONNECTIONS); /* the program's own, but for emptying a new pool */

/* Written by the program. */
BPF_TABLE_PINNED("percpu_array", __u32, struct traffic, traffic, MAX_BACKENDS, PINS "/traffic", 0);
BPF_TABLE_PINNED("percpu_array", __u32, __u64, reasons, REASONS, PINS "/reasons", 0);
BPF_TABLE_PINNED("percpu_array", __u32, __u64, events, EVENTS, PINS "/events", 0);
BPF_TABLE_PINNED("percpu_array", __u32, struct route, routes, ROUTE_LINES, PINS "/routes", 0);
BPF_TABLE_PINNED("percpu_array", __u32, __u32, turns, MAX_VIPS, PINS "/turns", 0); /* whose is next */
BPF_TABLE_PINNED("percpu_array", __u32, __u64, answers, 1, PINS "/answers",
		 0); /* jiffies << 32 | too big, since then */
BPF_TABLE_PINNED("percpu_array", __u32, __u64, scratch, 1, PINS "/scratch", 0);
BPF_TABLE_PINNED("percpu_array", __u32, struct handshakes, handshakes, MAX_WATCHED, PINS "/handshakes", 0);
BPF_TABLE_PINNED("array", __u32, __u64, begun, HANDSHAKE_PLACES, PINS "/begun", 0); /* enum stage, by connection */
BPF_TABLE_PINNED("array", __u32, struct flow_line, flows, FLOW_LINES, PINS "/flows", 0);
BPF_TABLE_PINNED("array", __u32, struct flow_line, fragments, FRAGMENT_LINES, PINS "/fragments", 0);
BPF_TABLE_PINNED("array", __u32, __s64, loads, MAX_BACKENDS, PINS "/loads", 0); /* open connections */

/* By index of the interface that the program runs on. */
BPF_XDP_REDIRECT_MAP("devmap:" PINS "/egress", int, egress, MAX_INTERFACES);
