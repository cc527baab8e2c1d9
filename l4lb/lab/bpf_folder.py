"""A BPF file system of one's own."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bpf_folder() -> Iterator[Path]:
    """Where pins can be; what is pinned there ends with the with block, but for what is still in use."""
    with tempfile.TemporaryDirectory(prefix="l4lb-bpf-") as folder:
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
