/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the program and the control plane share: the values in the maps and the names of every packet's fate.
 *
 * This file is the only description of it: l4lb/datapath/abi.py reads it. So it keeps to what that reader knows:
 * structs of fixed-width fields with explicit padding, enums with explicit or consecutive values, plain numeric
 * #defines. abi_check.h asserts the sizes.
 *
 * Values that change under traffic are 8 bytes wide and aligned, and the control plane stores them at once, so a
 * packet sees the old value or the new one, never half of each. All other fields are written before anything
 * points to them and stay until nothing does.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2), held in two words as they lie
 * in memory. The words are read as little-endian numbers: l4lb runs on little-endian machines.
 */

#define ENTRIES_PER_LINE 8
#define FLOWS_PER_LINE 4

/* A reference of the index: 24 bits, below a 40-bit tag. */
#define INDEX_REF_BITS 24
/* 64 bits each, before the index: most packets that are not in it find a 0 there, in 8 KB that stay in the nearest cache. */
#define FILTER_WORDS 1024
/* How many lines an index entry may be away from its home line. */
#define INDEX_PROBES 4

/* The two ways through the index: a packet's destination may be a VIP, its source may be a backend answering. */
enum way {
	WAY_TO_VIP = 1,
	WAY_FROM_BACKEND = 2,
};

enum mode {
	MODE_NAT = 1,
	MODE_DSR = 2,
};

/*
 * One side of a transport: what a VIP listens on, what a backend serves.
 */
struct endpoint {
	__u64 hi; /* address, bytes 0..7 */
	__u64 lo; /* address, bytes 8..15 */
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP; 0: nothing here */
	__u8 pad[5];
};

/*
 * One cache line of the index, an open-addressing hash table from (endpoint, way) to a VIP or backend number.
 * entry = tag << INDEX_REF_BITS | number; 0 is empty, and a line is filled from its start, so that a last entry of 0
 * ends a search. Tags have their top bit set.
 */
struct index_line {
	__u64 entry[8];
};

/*
 * table = number of slots << 32 | first line, the VIP's region in the slots map; 0 slots: no backend.
 * idle = how long a flow may be silent, in ticks of 2^30 ns, and is still remembered.
 */
struct vip {
	struct endpoint endpoint;
	__u64 table; /* changes under traffic */
	__u64 idle; /* changes under traffic */
	__u64 pad[3];
};

/*
 * The first line of a region; the slots follow from the next on. A slot is a backend's number, the highest number for
 * none; its top bit says that it is unsettled, which means that flows older than its last change may be somewhere else:
 * at the backend in the table of previous slots, or where their record says. The top bit of a previous slot is set by the
 * program when it is used.
 */
struct table_header {
	__u32 previous_line; /* where the previous slots begin */
	__u32 previous_slots; /* how many there are, 0: no slot is unsettled */
	__u32 learning_until; /* tick until which a UDP flow without a record is taken for an old one */
	__u32 pad[13];
};

/*
 * Records of flows in unsettled slots: four to a cache line, found by a hash of the flow (64 bits, keyed, so two flows have
 * the same one by accident never). 0: free.
 */
struct flow {
	__u64 tag;
	__u32 backend; /* generation << 24 | number */
	__u32 seen; /* tick */
};

struct flow_line {
	struct flow flow[4];
};

/*
 * One backend of one VIP, as prepared for the packet's way.
 * next_hop = egress interface index << 48 | MAC address as it lies in memory; 0: not resolved.
 * The deltas are what turning the VIP's address and port into the backend's adds to a one's-complement sum over
 * little-endian words (RFC 1624); their complements turn an answer back.
 */
struct backend {
	__u64 next_hop; /* changes under traffic */
	struct endpoint endpoint;
	__u32 vip;
	__u16 address_delta;
	__u16 transport_delta; /* address and port */
	__u8 mode; /* enum mode; 0: nothing here */
	__u8 generation; /* counts the records that had this number, so that a flow's record fits one only */
	__u8 pad[22];
};

/*
 * A network interface the program runs on: MTU << 48 | MAC address as it lies in memory. 0: not one of ours.
 */
struct port {
	__u64 word; /* changes under traffic */
};

/*
 * What a backend carried, towards it and back through this gateway; bytes are whole frames without the checksum.
 */
struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 packets_back;
	__u64 bytes_back;
};

/* What happened to the records of flows. */
enum event {
	FLOW_RECORDED,
	FLOW_EVICTED, /* to make room for another, though it was not idle */
	EVENTS, /* how many there are */
};

/*
 * A remembered answer of the kernel's routing table for one client, good until it expires (in jiffies, low 32 bits) or
 * the routing generation changes.
 */
struct route {
	__u64 hi;
	__u64 lo;
	__u64 next_hop; /* as in struct backend */
	__u32 generation;
	__u32 expires;
};

struct control {
	__u32 routing_generation; /* the control plane adds 1 when routes or neighbours change */
	__u32 pad;
};

/*
 * The fate of a packet that no backend's counter holds. "pass": the kernel goes on with it, untouched unless said
 * otherwise. "drop": it ends here. Values are positions in a counter array; names, in lower case, are a stable
 * interface.
 */
enum reason {
	FORWARDED = 0, /* not counted here but in struct traffic */
	PASS_NOT_IP, /* neither IPv4 nor IPv6: ARP, VLAN tags, LLDP */
	PASS_NOT_TCP_UDP, /* ICMP and other protocols; the kernel answers pings */
	PASS_NOT_VIP, /* no VIP and no answer from a backend: ordinary traffic of this host */
	PASS_OTHER_HOST, /* for a VIP, but the frame is addressed to another machine's MAC (flooded, mirrored) */
	PASS_FRAGMENT, /* a later fragment: it has no ports to tell whose it is */
	PASS_MALFORMED, /* too short or absurd to tell whose it is */
	PASS_TTL_EXPIRED, /* TTL 0 or 1, which a router does not forward: the kernel answers */
	PASS_LOCAL, /* a backend's packet to the gateway itself, or to where no route leads: the kernel answers */
	PASS_RESOLVE_NEIGHBOUR, /* an answer whose next hop's MAC is unknown: emptied, it makes the kernel ask for it */
	DROP_MALFORMED, /* for a VIP or from a backend, with lengths that contradict each other */
	DROP_FRAGMENT, /* the first fragment of a packet for a VIP or from a backend */
	DROP_NO_BACKEND, /* the VIP has no backend with a weight above 0 */
	DROP_NO_NEXT_HOP, /* the MAC address of the chosen backend's next hop is not known */
	DROP_NO_ROUTE, /* the routing table forbids the way back: blackhole, unreachable, prohibit */
	DROP_FORWARDING_OFF, /* nat needs net.ipv4.conf.<interface>.forwarding = 1 */
	DROP_TOO_BIG, /* longer than the MTU of the interface or route it has to leave by */
	DROP_NO_EGRESS, /* the interface it has to leave by is not one of ours */
	DROP_INCONSISTENT, /* a number in a map leads nowhere: a defect of the control plane */
	REASONS, /* how many there are */
};
