"""What replicas compare: the settings and files that count, and nothing else."""

from pathlib import Path

from evergrant.broker.runtime.traits import traits_of


def traits_with(catalog_dir: Path) -> str:
    return traits_of(public_url="https://a.example", egress_allow=(), master_keys=("one",), catalog_dir=catalog_dir)


def test_templates_count_and_hidden_files_beside_them_do_not(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "Mine"')
    before = traits_with(tmp_path)
    (tmp_path / "._mine.toml").write_bytes(b"\xff\xfe\x00")
    assert traits_with(tmp_path) == before
    (tmp_path / "mine.toml").write_text('name = "Ours"')
    assert traits_with(tmp_path) != before
