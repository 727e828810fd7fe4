from __future__ import annotations

import pytest

from feature_platform.domain.types import ColumnType
from feature_platform.errors import ConfigurationError, EntityError
from feature_platform.online.keys import parse_text
from feature_platform.online.settings import OnlineSettings, ValkeyAddress


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("valkey://cache", "valkey://cache:6379/0"),
        ("redis://cache:7000/2", "valkey://cache:7000/2"),
        ("valkeys://user:p%40ss@cache:7000?db=3", "valkeys://cache:7000/3"),
        ("rediss://cache", "valkeys://cache:6379/0"),
        ("valkey://[::1]:7000", "valkey://::1:7000/0"),
        ("unix:///run/my%20valkey.sock?db=4", "unix:///run/my valkey.sock?db=4"),
        ("unix://user:pass@/run/v.sock", "unix:///run/v.sock?db=0"),
    ],
)
def test_forms(url: str, shown: str) -> None:
    assert str(ValkeyAddress.parse(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://cache",
        "valkey://",
        "valkey://cache:port",
        "valkey://cache/x",
        "valkey://cache?tiemout=1",
        "unix://",
        "unix://host/run/v.sock",
    ],
)
def test_other_forms_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ValkeyAddress.parse(url)
    assert "valkeys://" in caught.value.allowed


def test_a_password_never_shows() -> None:
    address = ValkeyAddress.parse("valkey://user:s3cret@cache")
    assert address.password == "s3cret"  # noqa: S105
    assert "s3cret" not in repr(OnlineSettings(address=address)) + str(address)


@pytest.mark.parametrize(
    ("type_", "text"),
    [(ColumnType.INTEGER, "1.7"), (ColumnType.BOOLEAN, "1"), (ColumnType.DATE, "yesterday"), (ColumnType.BIGINT, "")],
)
def test_texts_that_spell_no_key(type_: ColumnType, text: str) -> None:
    with pytest.raises(EntityError, match="'k'"):
        parse_text("k", type_, text)
