"""The audiences a record is written for: roles with the names and words of their world (audiences.toml)."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Audience:
    """`names` gives the role's word for each type of value; `samples` are the words its examples are made of."""

    role: str
    names: Mapping[str, str]
    samples: tuple[str, ...]


@cache
def audiences() -> tuple[Audience, ...]:
    text = resources.files("textbooks").joinpath("audiences.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["audience"]
    return tuple(Audience(row["role"], row["names"], tuple(row["samples"])) for row in rows)


@cache
def audience(role: str) -> Audience:
    """The audience with this role. Raises KeyError for a role that audiences.toml does not hold."""
    return {entry.role: entry for entry in audiences()}[role]
