"""Prints where the compiler puts each member of the maps' values; a process of its own, since bcc stays with one.

On standard input a JSON object: the program's `text`, its `switches`, and the `tables` to describe.
"""

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

from l4lb.datapath import uapi


def scalars(kind: type[ctypes.Structure], base: int = 0) -> list[list[int]]:
    """Offset and size of each member, structs taken apart."""
    found = []
    for name, member, *_ in kind._fields_:
        field = getattr(kind, name)
        if issubclass(member, ctypes.Structure):
            found += scalars(member, base + field.offset)
        else:
            found.append([base + field.offset, field.size])
    return found


def main() -> None:
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        uapi.write_tree(Path(folder))
        os.environ["BCC_KERNEL_SOURCE"] = folder
        import bcc

        flags = [f"-D{name}={value}" for name, value in job["switches"].items()]
        module = bcc.BPF(text=job["text"], cflags=[*uapi.include_flags(), *flags])
    leaves = {name: module[name].Leaf for name in job["tables"]}
    # The value of a per-CPU map is an array of one struct per CPU.
    structs = {name: getattr(leaf, "_type_", leaf) for name, leaf in leaves.items()}
    json.dump({name: scalars(struct) for name, struct in structs.items()}, sys.stdout)


if __name__ == "__main__":
    main()
