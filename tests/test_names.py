"""One word for one thing: what has a name in the broker has it alone."""

import ast
from collections import defaultdict
from pathlib import Path

BROKER = Path(__file__).parents[1] / "src/evergrant/broker"


def test_no_class_or_function_of_the_broker_has_the_name_of_another() -> None:
    places = defaultdict(list)
    for path in sorted(BROKER.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].append(str(path.relative_to(BROKER)))
    assert len(places) > 300, "nothing was looked at"
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_room_of_the_broker_is_a_drawer_for_what_has_no_place() -> None:
    names = {path.stem for path in BROKER.rglob("*") if path.name != "__pycache__"}
    assert names & {"util", "utils", "helpers", "common", "core", "misc", "services", "repositories", "base"} == set()
