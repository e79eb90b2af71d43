"""The app library as a mapping that makes an entry when it is first asked for.

A process uses a handful of some hundred entries: making all of them would be most of what its start costs.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from evergrant.catalog.template import Template


class Catalogue(Mapping[str, Template]):
    """The templates by id, in the order of the ids."""

    def __init__(self, makers: Mapping[str, Callable[[], Template]]) -> None:
        self._makers = dict(sorted(makers.items()))
        self._made: dict[str, Template] = {}

    def __getitem__(self, template_id: str) -> Template:
        if template_id not in self._made:
            self._made[template_id] = self._makers[template_id]()
        return self._made[template_id]

    def __contains__(self, template_id: object) -> bool:
        return template_id in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    @cached_property
    def scope_addresses(self) -> Mapping[str, tuple[str, ...]]:
        """Every scope, and those of its other spellings that are addresses: nobody else means something by them."""
        aliases: dict[str, tuple[str, ...]] = {}
        for template in self.values():
            for scope, spellings in template.scope_aliases.items():
                aliases[scope] = (*aliases.get(scope, ()), *(spelling for spelling in spellings if "://" in spelling))
        return aliases
