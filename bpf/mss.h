/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Lowers the segment size that a SYN announces (RFC 9293 §3.7.1), so that what it asks for fits the way. */

#if WITH_MSS

#define MAX_OPTIONS 10
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2

static __always_inline void clamp_mss(const struct packet *packet, __u16 most)
{
	struct tcphdr *tcp = tcp_of(packet);
	__u32 at = sizeof(struct tcphdr), end;
	int i;

	if (!most || !tcp || !tcp->syn)
		return;
	end = tcp->doff * 4;
	if (packet->header + end > ip_length(packet))
		return;
#pragma unroll
	for (i = 0; i < MAX_OPTIONS; i++) {
		__u8 *option = packet->transport + at;

		if (at + 4 > end || (void *)(option + 4) > packet->end || option[0] == OPTION_END)
			return;
		if (option[0] == OPTION_MSS && option[1] == 4) {
			__u16 *size = (void *)(option + 2), old = *size;

			if (bpf_ntohs(old) <= most)
				return;
			*size = bpf_htons(most);
			/* At an odd place a byte counts for the other half of its word. */
			if (at & 1)
				tcp->check = update_checksum(tcp->check, (__u32)bpf_ntohs((__u16)~old) + most);
			else
				tcp->check = update_checksum(tcp->check, (__u32)(__u16)~old + *size);
			return;
		}
		if (option[0] != OPTION_NOP && option[1] < 2)
			return;
		at = unknown(at + (option[0] == OPTION_NOP ? 1 : option[1])) & 0x1ff;
	}
}

#endif
