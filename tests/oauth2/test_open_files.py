"""How many connections there may be, by the system's limit on open files."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from evergrant.oauth2.open_files import connections_at_once
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {most}))
print(connections_at_once(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("files", "most", "connections", "raised_to"),
    [
        (256, 256, 64, 256),
        (256, 2_048, 512, 2_048),
        (256, 9_000, 1_000, 8_192),
        (9_000, 9_000, 1_000, 9_000),
    ],
)
def test_a_process_takes_the_files_that_it_may_have_and_leaves_most_to_others(
    files: int, most: int, connections: int, raised_to: int
) -> None:
    script = SCRIPT.format(files=files, most=most)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(connections), str(raised_to)]
