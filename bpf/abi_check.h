/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The layouts in abi.h as numbers: a compiler that pads them otherwise stops here. */

_Static_assert(sizeof(struct endpoint) == 24, "struct endpoint");
_Static_assert(sizeof(struct index_line) == 64, "struct index_line: one cache line");
_Static_assert(sizeof(struct vip) == 64, "struct vip: one cache line");
_Static_assert(sizeof(struct address) == 64, "struct address: one cache line");
_Static_assert(sizeof(struct range_line) == 64, "struct range_line: one cache line");
_Static_assert(sizeof(struct backend) == 64, "struct backend: one cache line");
_Static_assert(sizeof(struct pool) == 8, "struct pool");
_Static_assert(sizeof(struct connection) == 32, "struct connection: two to a cache line");
_Static_assert(sizeof(struct table_header) == 64, "struct table_header: one cache line");
_Static_assert(sizeof(struct flow_line) == 64, "struct flow_line: one cache line");
_Static_assert(sizeof(struct port) == 16, "struct port");
_Static_assert(sizeof(struct traffic) == 32, "struct traffic");
_Static_assert(sizeof(struct handshakes) == 192, "struct handshakes: three cache lines");
_Static_assert(sizeof(struct route) == 32, "struct route");
_Static_assert(sizeof(struct control) == 16, "struct control");
_Static_assert(sizeof(struct slot_line) == 64, "struct slot_line: one cache line");
