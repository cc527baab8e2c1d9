"""The one part that touches the kernel: programs, maps, attachments, next hops and addresses."""
