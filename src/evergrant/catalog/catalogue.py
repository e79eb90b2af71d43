"""The app library as a mapping that makes an entry when it is first asked for.

A process uses a handful of some hundred entries: making all of them would be most of what its start costs.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property

from evergrant.catalog.template import Template


class Catalogue(Mapping[str, Template]):
    """The templates by id, in the order of the ids."""

    def __init__(self, makers: Mapping[str, Callable[[], Template]], *, with_aliases: Collection[str]) -> None:
        """`with_aliases` are the ids of those that may spell a scope in several ways."""
        self.with_aliases = sorted(set(with_aliases))
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
        aliases: dict[str, dict[str, None]] = {}  # each spelling once, in their order: families share theirs
        for template in map(self.__getitem__, self.with_aliases):
            for scope, spellings in template.scope_aliases.items():
                addresses = (spelling for spelling in spellings if "://" in spelling)
                aliases.setdefault(scope, {}).update(dict.fromkeys(addresses))
        return {scope: tuple(spellings) for scope, spellings in aliases.items()}
