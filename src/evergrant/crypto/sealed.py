"""A ciphertext as a value that tells nothing about itself."""

from dataclasses import dataclass, field, replace
from struct import Struct


@dataclass(frozen=True, slots=True)
class Sealed:
    """An opaque ciphertext, as it stands in the database. Only `broker.vault` opens one."""

    ciphertext: bytes = field(repr=False)

    def __repr__(self) -> str:
        """Never show the bytes: not even a ciphertext belongs in a log."""
        return "<sealed>"


@dataclass(frozen=True, slots=True)
class Slot:
    """The place a secret belongs to. A ciphertext that is moved to another place does not open there."""

    project_id: str
    table: str
    column: str
    row_id: str
    bound: tuple[str, ...] = ()
    """What its row says in plain columns that decides where the secret goes, such as the owner of a token."""

    @property
    def place(self) -> "Slot":
        """The same without what its row says, as earlier versions sealed."""
        return replace(self, bound=())

    def associated_data(self) -> bytes:
        """Encode the place unambiguously: no part can run over into its neighbour."""
        raws = [part.encode() for part in (self.project_id, self.table, self.column, self.row_id, *self.bound)]
        return b"".join([part for raw in raws for part in (_length(len(raw)), raw)])


_length = Struct(">I").pack
