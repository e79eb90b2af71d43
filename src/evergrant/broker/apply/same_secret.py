"""Whether a secret in a file is the one that is stored: the plan says that it changes, and not to what."""

from pydantic import SecretStr

from evergrant.broker.runtime.broker import Broker
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed


async def is_the_same(broker: Broker, place: Slot, stored: Sealed | None, wanted: SecretStr | None) -> bool:
    """Tell whether a stored secret is the wanted one. One that cannot be opened is not: it is of no use to anybody."""
    text = wanted.get_secret_value() if wanted is not None else ""
    if stored is None or not text:
        return stored is None and not text
    try:
        return (await broker.vault.open(place, stored)).get_secret_value() == text
    except CannotOpenSealed:
        return False
