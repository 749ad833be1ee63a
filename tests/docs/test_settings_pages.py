"""The pages about settings say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from wsproxy.config import SETTINGS, Settings, load
from wsproxy.config.__main__ import main
from wsproxy.config.pages import markdown_page, toml_page

ROOT: Final = Path(__file__).parents[2]
SETTING_LINE: Final = re.compile(r"^#(?=[a-z\]]|    \")", re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "written", "command"),
    [
        ("config/wsproxy.toml", toml_page, "--toml"),
        ("docs/settings.md", markdown_page, "--markdown"),
    ],
    ids=["toml", "markdown"],
)
def test_the_page_is_up_to_date(page: str, written: object, command: str) -> None:
    assert callable(written)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == written(), f"run: python -m wsproxy.config {command} > {page}"


def test_the_file_as_shipped_changes_nothing() -> None:
    loaded = load(environment={}, file=ROOT / "config" / "wsproxy.toml")
    assert set(loaded.sources.values()) == {"default"}


def test_every_line_of_the_file_is_right_once_its_sign_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "wsproxy.toml"
    path.write_text(SETTING_LINE.sub("", toml_page()), encoding="utf-8")
    loaded = load(environment={}, file=path)
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {f"file {path}"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_says_what_it_is_and_has_its_unit_in_its_name(name: str) -> None:
    about = SETTINGS[name]
    assert about.help.endswith(".") or "://" in about.help.rsplit(" ", 1)[-1]
    if isinstance(about.default, float):
        assert name.endswith("_s")
    assert about.kind.parse(about.default if about.default is not None else "") == about.default


def test_an_unknown_page_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--html"]) == 2
    assert "--toml | --markdown" in capsys.readouterr().err
