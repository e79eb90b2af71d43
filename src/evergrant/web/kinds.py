"""What a permission lets an application do with an account: see, change or delete. Read off its words, else its name.

Descriptions begin with their verbs ("See, edit and permanently delete your contacts"), so only those are looked at: in
"See your posts" nothing is posted. Of several kinds, the heaviest counts; of what says nothing, none.
"""

import re
from typing import Literal

Kind = Literal["", "sees", "changes", "deletes"]


def _by_word(**words: str) -> dict[str, Kind]:
    kinds: tuple[Kind, ...] = ("sees", "changes", "deletes")
    return {word: kind for kind in kinds for word in words[kind].split()}


_VERBS = _by_word(
    sees="see sees read view know get download query list find search look recognise recognize",
    changes="""
        act add administer book buy cancel change comment compose control create decline edit everything follow full
        import interact invite like make manage mark merge modify move offer open organise organize pay post publish
        push put rename reply request run save schedule send set share sign store
        submit take update upload use vote work write
    """,
    deletes="delete remove erase purge destroy",
)
_PARTS_OF_NAMES = _by_word(
    sees="read readonly r view history openid email profile",
    changes="write w readwrite rw edit manage admin create send modify compose update upload full all",
    deletes="delete remove",
)
_WEIGHTS: tuple[Kind, ...] = ("", "sees", "changes", "deletes")
_ADVERBS = frozenset({"also", "permanently", "then"})


def kind_of(words: str, scope: str) -> Kind:
    """Return what a scope is for, by its English words where they say it, else by its name."""
    found = [_VERBS.get(_first_word(clause), "") for clause in re.split(r",|\b(?:and|or)\b", words.lower())]
    if not any(found):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", scope.rpartition("/")[2] or scope)
        found = [_PARTS_OF_NAMES.get(part, "") for part in re.split(r"[^a-z]+", name.lower())]
    return max(found, key=_WEIGHTS.index, default="")


def _first_word(clause: str) -> str:
    return next((word for word in re.findall(r"[a-z]+", clause) if word not in _ADVERBS), "")
