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
/* Ranges of ports in a line of the map port_ranges. */
#define RANGES_PER_LINE 16
#define NO_VIP 65535
/* Where in its pool a connection may be, counted from the place that its client hashes to. */
#define POOL_PROBES 8
/* The first port that fullnat sends from, and how many an address of the pool has. Ephemeral ports begin above them. */
#define POOL_PORT 16384
#define POOL_PORTS 16384

/* The ways through the index: a packet's destination may be a VIP, its source may be a backend answering. */
enum way {
	WAY_TO_VIP = 1,
	WAY_FROM_BACKEND = 2,
	WAY_TO_ADDRESS = 3, /* an address that has VIPs: with port and protocol 0 */
};

enum mode {
	MODE_NAT = 1,
	MODE_DSR = 2,
	MODE_FULLNAT = 3,
	MODE_IPIP = 4,
	MODE_GUE = 5,
};

enum scheduler {
	SCHEDULER_MAGLEV = 1,
	SCHEDULER_SOURCE_HASH = 2,
	SCHEDULER_ROUND_ROBIN = 3,
	SCHEDULER_LEAST_CONNECTIONS = 4,
	SCHEDULER_RANDOM = 5,
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
 * The masks say which bits of a client's address source-hash goes by; as they lie in memory.
 */
struct vip {
	struct endpoint endpoint; /* a VIP of several ports: the lowest of them */
	__u64 table; /* changes under traffic */
	__u64 idle; /* changes under traffic */
	__u64 mask_hi;
	__u64 mask_lo;
	__u8 scheduler; /* enum scheduler; changes under traffic */
	__u8 flags; /* enum vip_flag; changes under traffic */
	__u16 last_port; /* a VIP of several ports: the highest; else 0 */
	__u16 mss; /* the largest segment that SYNs may announce, 0: any; changes under traffic */
	__u16 pad2;
};

enum vip_flag {
	VIP_REFUSES = 1, /* a client is told if there is no backend for it */
};

/*
 * An address that has VIPs. ranges = number of ranges << 32 | first line in the map port_ranges, for VIPs that take
 * several ports; a range is first port << 16 | VIP, and lasts until the next one begins.
 */
struct address {
	struct endpoint endpoint; /* port and protocol 0 */
	__u64 tcp_ranges; /* changes under traffic */
	__u64 udp_ranges; /* changes under traffic */
	__u8 used; /* 1 */
	__u8 pad[23];
};

struct range_line {
	__u32 range[16];
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
	__u32 turns_line; /* what schedulers choose from that do not hash */
	__u32 turns; /* how many: backends in turn for round-robin, (backend, weight) for least-connections */
	__u32 turns_for; /* enum scheduler: whose they are */
	__u32 pad[10];
};

/*
 * Records of flows in unsettled slots: four to a cache line, found by a hash of the flow (64 bits, keyed, so two flows have
 * the same one by accident never). 0: free.
 */
struct flow {
	__u64 tag;
	__u32 backend; /* generation << 24 | number */
	__u32 seen; /* enum flow_state << 24 | low bits of the tick */
};

/* What is known of a flow. */
enum flow_state {
	FLOW_UNCOUNTED = 0, /* recorded for the sake of its slot only, and part of no backend's load */
	FLOW_BEGUN = 1, /* nothing but a SYN, or a first datagram */
	FLOW_OPEN = 2,
	FLOW_CLOSING = 3, /* one side sent FIN */
	FLOW_CLOSED = 4, /* RST */
};

struct flow_line {
	struct flow flow[4];
};

/*
 * One backend of one VIP, as prepared for the packet's way.
 * next_hop = egress interface index << 48 | MAC address as it lies in memory; 0: not resolved.
 * The delta is what turning the VIP's address into the backend's adds to a one's-complement sum over little-endian
 * words (RFC 1624); its complement turns an answer back.
 * The source is that of an outer header, or of fullnat's pool; a flow has its own, by what of its hash source_mask, in
 * network order, lets through to the last four bytes.
 */
struct backend {
	__u64 next_hop; /* changes under traffic */
	__u64 hi; /* address, bytes 0..7 */
	__u64 lo; /* address, bytes 8..15 */
	__be16 port; /* 0: the one that the client chose */
	__u8 protocol;
	__u8 mode; /* enum mode; 0: nothing here */
	__u8 generation; /* counts the records that had this number, so that a flow's record fits one only */
	__u8 flags; /* enum backend_flag */
	__u16 room; /* the longest IP packet that can be sent there, without outer headers; changes under traffic */
	__u32 vip;
	__u16 address_delta;
	__be16 tunnel_port;
	__u64 source_hi; /* changes under traffic */
	__u64 source_lo; /* changes under traffic */
	__u32 source_mask; /* changes under traffic */
	__u16 outer_sum; /* of what all outer IPv4 headers have in common, destination included */
	__u16 watch; /* where its handshakes are counted, 0: nowhere; changes under traffic */
};

enum backend_flag {
	BACKEND_IPV6 = 1, /* its address is */
	BACKEND_SHARED = 2, /* by nat, with another VIP's backend: answers are told apart by their client */
};

/* Where the connections of a server are: size << 32 | first, by the number of each of its backends. Size: a power of two. */
struct pool {
	__u64 word;
};

/*
 * A connection whose answers need more than their source to be told whose they are. Its place in the server's pool is
 * the port, and the address, that fullnat sends from.
 * state = enum flow_state << 56 | low bits of the tick << 32 | generation << 24 | backend; 0: free.
 */
struct connection {
	__u64 client_hi;
	__u64 client_lo;
	__be16 client_port;
	__be16 service_port;
	__u32 pad;
	__u64 state;
};

/*
 * A network interface that packets come in or leave by. word = MTU << 48 | MAC address as it lies in memory; 0: not one
 * of ours. link = outer VLAN tag << 48 | inner VLAN tag << 32 | index of the interface that the program runs on.
 * A VLAN tag: 1 << 15 for "there is one", 1 << 14 for 802.1ad, and the VLAN's number.
 */
struct port {
	__u64 word; /* changes under traffic */
	__u64 link;
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

/*
 * How times are counted: those of handshakes below 16 us, below 32 and so on, those of replies below 256 us and so on; the
 * last is for all that take longer.
 */
#define TIME_BUCKETS 16
#define TIME_SHIFT 4
#define REPLY_SHIFT 8
/* Connections whose handshake is under way; of several with one place the last counts. A power of two. */
#define HANDSHAKE_PLACES 65536

/*
 * What the connections to one backend tell of it. Each counts once in each line, as far as it comes.
 */
struct handshakes {
	__u64 begun; /* connections with a SYN */
	__u64 repeated; /* SYNs sent again, as none was answered yet */
	__u64 answered; /* SYNs answered by SYN-ACK */
	__u64 refused; /* SYNs answered by RST */
	__u64 requests; /* connections in which the client sent data before the backend did */
	__u64 replies; /* requests answered by data, or by an end */
	__u64 pad[2];
	__u32 times[16]; /* from SYN to SYN-ACK, those sent once */
	__u32 reply_times[16]; /* from request to the first data of the reply */
};

/* What happened to the records of flows. */
enum event {
	FLOW_RECORDED,
	FLOW_EVICTED, /* to make room for another, though it was not idle */
	CONNECTION_MADE, /* a place in a server's pool taken */
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
	__u16 generation;
	__u16 mtu; /* the route's, 0: the interface's */
	__u32 expires;
};

struct control {
	__u32 routing_generation; /* the control plane adds 1 when routes or neighbours change */
	__u32 pad;
	__u64 flags; /* enum control_flag */
};

enum control_flag {
	CONTROL_NO_ECHO = 1, /* pings to VIPs are left to the kernel */
};

/*
 * The fate of a packet that no backend's counter holds. "pass": the kernel goes on with it, untouched unless said
 * otherwise. "drop": it ends here. Values are positions in a counter array; names, in lower case, are a stable
 * interface.
 */
enum reason {
	FORWARDED = 0, /* not counted here but in struct traffic */
	PASS_NOT_IP, /* neither IPv4 nor IPv6: ARP, LLDP, VLAN tags where no VLAN is configured */
	PASS_NOT_TCP_UDP, /* other protocols, and ICMP that is about no flow of ours */
	PASS_NOT_VIP, /* no VIP and no answer from a backend: ordinary traffic of this host */
	PASS_OTHER_HOST, /* for a VIP, but the frame is addressed to another machine's MAC (flooded, mirrored) */
	PASS_FRAGMENT, /* a later fragment of a packet that is not known to be ours */
	PASS_MALFORMED, /* too short or absurd to tell whose it is */
	PASS_TTL_EXPIRED, /* TTL or hop limit 0 or 1, which a router does not forward: the kernel answers */
	PASS_LOCAL, /* a backend's packet to the gateway itself, or to where no route leads: the kernel answers */
	PASS_RESOLVE_NEIGHBOUR, /* an answer whose next hop's MAC is unknown: emptied, it makes the kernel ask for it */
	PASS_TOO_BIG, /* an answer by nat, longer than the MTU of its way and not to be fragmented: the kernel tells the backend */
	ANSWER_ECHO, /* a ping to a VIP's address */
	ANSWER_TOO_BIG, /* longer than fits its way to the backend, or by fullnat back: its sender is told how long it may be */
	ANSWER_REFUSED, /* the VIP has no backend for it, and says so: TCP reset or port unreachable */
	ANSWER_RESET, /* by fullnat, a TCP segment of no connection that is known: reset, as the server would */
	DROP_MALFORMED, /* for a VIP or from a backend, with lengths that contradict each other */
	DROP_FRAGMENT, /* a later fragment for a VIP's address, of which no first one was seen */
	DROP_NO_BACKEND, /* the VIP has no backend that takes new flows */
	DROP_NO_NEXT_HOP, /* the MAC address of the chosen backend's next hop is not known */
	DROP_NO_ROUTE, /* the routing table forbids the way back: blackhole, unreachable, prohibit */
	DROP_FORWARDING_OFF, /* nat needs net.ipv4.conf.<interface>.forwarding = 1, or net.ipv6 for IPv6 */
	DROP_TOO_BIG, /* too long for its way, and no message about it can or may be sent */
	DROP_NO_EGRESS, /* the interface it has to leave by is not one of ours */
	DROP_NO_CONNECTION, /* fullnat or a shared backend: of no connection that is known, so its port is not either */
	DROP_NO_PORT, /* fullnat or a shared backend: every place for the connection is taken by one that lives */
	DROP_NO_HEADROOM, /* the driver left no room before the packet for an outer header */
	DROP_INCONSISTENT, /* a number in a map leads nowhere: a defect of the control plane */
	REASONS, /* how many there are */
};
