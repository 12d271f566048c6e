"""Configurations that came as plain values."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from core_models.errors import UserError
from core_models.fields import checked
from core_models.latent import ConditionalVAEConfig


@dataclass(frozen=True)
class Part:
    rate: float = 1.0


@dataclass(frozen=True)
class Config:
    size: int
    name: str = "a"
    rate: float = 1.0
    on: bool = False
    kind: Literal["x", "y"] = "x"
    hidden: tuple[int, ...] = ()
    pair: tuple[float, str] = (0.0, "")
    maybe: int | None = None
    part: Part = field(default_factory=Part)
    free: Any = None
    many: list[int] = field(default_factory=list)


def test_values_are_made_to_fit():
    given = {
        "size": 3,
        "rate": 2,
        "hidden": [4, 5],
        "pair": [1, "b"],
        "maybe": None,
        "part": {"rate": 3},
        "free": [1, [2]],
        "many": [1],
    }
    config = Config(**checked(Config, given))
    assert config == Config(3, rate=2.0, hidden=(4, 5), pair=(1.0, "b"), part=Part(3.0), free=(1, [2]), many=[1])
    assert isinstance(config.rate, float)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "Config needs a value for 'size', got none: give it"),
        ({"size": 1, "nam": "b"}, "Config has no field 'nam'; did you mean name?"),
        ({"size": 1, "zzz": "b"}, "Config has no field 'zzz'; it has size, name, rate"),
        ({"size": "many"}, "Config.size: expected a whole number, got 'many'"),
        ({"size": 1.5}, "Config.size: expected a whole number, got 1.5"),
        ({"size": True}, "Config.size: expected a whole number, got True"),
        ({"size": 1, "on": 1}, "Config.on: expected true or false, got 1"),
        ({"size": 1, "rate": "fast"}, "Config.rate: expected a number, got 'fast'"),
        ({"size": 1, "name": 2}, "Config.name: expected a string, got 2"),
        ({"size": 1, "kind": "z"}, "Config.kind: expected one of x, y, got 'z'"),
        ({"size": 1, "kind": ["z"]}, "Config.kind: expected one of x, y, got ['z']"),
        ({"size": 1, "hidden": 4}, "Config.hidden: expected tuple[int, ...], got 4"),
        ({"size": 1, "hidden": [4, "b"]}, "Config.hidden: expected a whole number, got 'b'"),
        ({"size": 1, "pair": [1.0]}, "Config.pair: expected tuple[float, str], got [1.0]"),
        ({"size": 1, "maybe": "b"}, "Config.maybe: expected int | None, got 'b'"),
        ({"size": 1, "part": {"rat": 1}}, "Part has no field 'rat'; did you mean rate?"),
    ],
)
def test_mistakes_name_the_field_the_rule_and_the_value(values, why):
    with pytest.raises(UserError) as error:
        checked(Config, values)
    assert str(error.value).startswith(why)


def test_fields_of_a_parent_in_another_module_are_checked_too():
    assert checked(ConditionalVAEConfig, {"activation": "relu", "hidden": [3]}) == {
        "activation": "relu",
        "hidden": (3,),
    }
    with pytest.raises(UserError, match=r"ConditionalVAEConfig\.activation: expected one of relu, softplus"):
        checked(ConditionalVAEConfig, {"activation": "swish"})


def test_a_class_with_plain_arguments():
    class Mine:
        def __init__(self, size: int, *args: int, scale: float = 1.0, **more: str) -> None: ...

    assert checked(Mine, {"size": 1, "scale": 3, "other": "b"}) == {"size": 1, "scale": 3.0, "other": "b"}
    with pytest.raises(UserError, match="Mine needs a value for 'size'"):
        checked(Mine, {})
