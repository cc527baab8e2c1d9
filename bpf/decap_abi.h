/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What became of each packet that `l4lb decap` saw, for program and control plane. As abi.h, this is the only description
 * of it, and keeps to what l4lb/datapath/abi.py reads.
 */

#define MAX_DECAP_VIPS 1024

enum decap_reason {
	/* Stripped and passed up. By kind: the outer family counts 2, the inner one 1, GUE 4. */
	DECAP_IPV4_IN_IPV4,
	DECAP_IPV6_IN_IPV4,
	DECAP_IPV4_IN_IPV6,
	DECAP_IPV6_IN_IPV6,
	DECAP_IPV4_IN_GUE_IPV4,
	DECAP_IPV6_IN_GUE_IPV4,
	DECAP_IPV4_IN_GUE_IPV6,
	DECAP_IPV6_IN_GUE_IPV6,
	/* Passed up as they are. */
	PASS_NOT_TUNNEL, /* of no kind that is stripped */
	PASS_NOT_VIP, /* a tunnel's packet, but what is in it goes to no address of ours */
	PASS_OPTIONS, /* with IPv4 options, or IPv6 destination options, before a protocol that tunnels use */
	PASS_FRAGMENT, /* a fragment, of a protocol that tunnels use */
	PASS_MALFORMED, /* of a protocol that tunnels use, truncated or with headers that contradict each other */
	/* Dropped. */
	DROP_ECN, /* congestion was experienced on the way, and its sender has no ear for it (RFC 6040 section 4.2) */
	DECAP_REASONS, /* how many there are */
};
