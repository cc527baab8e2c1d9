"""The layout that the BPF program and the control plane share, read from ``bpf/abi.h`` itself.

There is no second description to keep in step: structs become :mod:`ctypes` classes, enums become dictionaries from
names to values, numeric ``#define`` become integers. The reader knows the small part of C that the header keeps to
(fixed-width fields, one-dimensional arrays, structs in structs, enums) and refuses anything else. A test compares the
result with the layout that the compiler derives.
"""

import ctypes
import re
from functools import cache
from typing import Any

from l4lb.datapath.source import BPF_DIR

_SCALARS = {
    "__u8": ctypes.c_uint8,
    "__u16": ctypes.c_uint16,
    "__u32": ctypes.c_uint32,
    "__u64": ctypes.c_uint64,
    "__be16": ctypes.c_uint16,
    "__be32": ctypes.c_uint32,
}
_ITEM = re.compile(
    r"\s*(?:#define\s+(?P<define>\w+)\s+(?P<value>\d+)\s*?\n"
    r"|struct\s+(?P<struct>\w+)\s*\{(?P<fields>[^{}]*)\}\s*;"
    r"|enum\s+(?P<enum>\w+)\s*\{(?P<values>[^{}]*)\}\s*;)"
)
_FIELD = re.compile(r"(?:struct\s+(?P<struct>\w+)|(?P<scalar>\w+))\s+(?P<name>\w+)(?:\[(?P<count>\d+)\])?$")


class Abi:
    """What a header declares: ``structs``, ``enums`` and ``constants``, each by its C name.

    Raises:
        ValueError: the header has something that this reader does not know.
    """

    def __init__(self, header: str) -> None:
        self.structs: dict[str, type[ctypes.Structure]] = {}
        self.enums: dict[str, dict[str, int]] = {}
        self.constants: dict[str, int] = {}
        text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
        position = 0
        while text[position:].strip():
            item = _ITEM.match(text, position)
            if item is None:
                raise ValueError(f"not understood: {text[position:].strip().splitlines()[0]!r}")
            self._add(item)
            position = item.end()

    def names(self, enum: str) -> tuple[str, ...]:
        """The names of an enum that numbers counters, in lower case as users meet them; its last value counts them."""
        *names, _ = self.enums[enum]
        return tuple(map(str.lower, names))

    def _add(self, item: re.Match[str]) -> None:
        if item["define"]:
            self.constants[item["define"]] = int(item["value"])
        elif item["struct"]:
            fields = [self._field(line.strip()) for line in item["fields"].split(";") if line.strip()]
            self.structs[item["struct"]] = type(item["struct"], (ctypes.LittleEndianStructure,), {"_fields_": fields})
        else:
            self.enums[item["enum"]] = _enumerators(item["values"])

    def _field(self, declaration: str) -> tuple[str, type[Any]]:
        field = _FIELD.match(declaration)
        if field is None or (field["scalar"] and field["scalar"] not in _SCALARS):
            raise ValueError(f"not understood: {declaration!r}")
        if field["struct"]:
            return field["name"], self.structs[field["struct"]]
        scalar = _SCALARS[field["scalar"]]
        return field["name"], scalar * int(field["count"]) if field["count"] else scalar


def _enumerators(body: str) -> dict[str, int]:
    values: dict[str, int] = {}
    following = 0
    for item in filter(None, (part.strip() for part in body.split(","))):
        name, _, value = (part.strip() for part in item.partition("="))
        values[name] = int(value) if value else following
        following = values[name] + 1
    return values


@cache
def load() -> Abi:
    """The layout of this installation's ``bpf/abi.h``."""
    return Abi((BPF_DIR / "abi.h").read_text())


def reason_names() -> tuple[str, ...]:
    """The reasons' names as users meet them (``pass_not_vip``), by their position in the kernel's counters."""
    return load().names("reason")
