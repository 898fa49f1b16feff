"""Have Debian sid's Apptainer run with the C library of Debian 12: apptainer_glibc.py PROGRAM...

A program built against glibc 2.38 asks for `__isoc23_strtol` and `__isoc23_strtoul`, which do what `strtol` and `strtoul`
do but for one prefix. Here its dynamic symbols are renamed to those, and its wish for that glibc's version is replaced by
one for 2.2.5.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NEW = "__isoc23_"
NEW_VERSIONS = ("GLIBC_2.38", "GLIBC_2.37", "GLIBC_2.39")
OLD_VERSION = "GLIBC_2.2.5"
DYNSYM, VERNEED = 11, 0x6FFFFFFE  # types of sections


class Section(NamedTuple):
    """The header of a section of a 64-bit ELF file."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Elf:
    """A program, as bytes that can be changed."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(path.read_bytes())
        (headers,) = struct.unpack_from("<Q", self.data, 0x28)
        size, count, _ = struct.unpack_from("<HHH", self.data, 0x3A)
        self.sections = [
            Section(*struct.unpack_from("<IIQQQQIIQQ", self.data, headers + i * size)) for i in range(count)
        ]
        self.symbols = self.section(DYNSYM)
        self.strings = self.sections[self.symbols.link].offset

    def section(self, kind: int) -> Section:
        """The one section of a type."""
        return next(section for section in self.sections if section.kind == kind)

    def text(self, offset: int) -> str:
        """A name in the table of strings."""
        start = self.strings + offset
        return self.data[start : self.data.index(0, start)].decode()

    def rename_symbols(self) -> None:
        """Drop the prefix of new names: what is left of the string is the old name."""
        symbols = self.symbols
        for at in range(symbols.offset, symbols.offset + symbols.size, symbols.entry_size):
            (name,) = struct.unpack_from("<I", self.data, at)
            if self.text(name).startswith(NEW):
                struct.pack_into("<I", self.data, at, name + len(NEW))

    def needed_versions(self) -> Iterator[tuple[int, int]]:
        """Place and name of every version that is asked of a library."""
        at = self.section(VERNEED).offset
        while True:
            _, count, _, first, step = struct.unpack_from("<HHIII", self.data, at)
            entry = at + first
            for _ in range(count):
                _, _, _, name, following = struct.unpack_from("<IHHII", self.data, entry)
                yield entry, name
                entry += following
            if not step:
                return
            at += step

    def lower_versions(self) -> None:
        """Ask for the old version where a new one is asked for."""
        needed = list(self.needed_versions())
        old = next(name for _, name in needed if self.text(name) == OLD_VERSION)
        for entry, name in needed:
            if self.text(name) in NEW_VERSIONS:
                struct.pack_into("<I", self.data, entry, elf_hash(OLD_VERSION))
                struct.pack_into("<I", self.data, entry + 8, old)


def elf_hash(text: str) -> int:
    """The hash that the loader compares versions by, as the System V ABI defines it."""
    value = 0
    for byte in text.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value & 0xFFFFFFFF


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        elf = Elf(path)
        elf.rename_symbols()
        elf.lower_versions()
        path.write_bytes(elf.data)


if __name__ == "__main__":
    main()
