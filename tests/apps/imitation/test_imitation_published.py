"""Published figures on the scale from a random policy to the expert, and the random policies that scale them."""

import csv
import io
from importlib.resources import files

import pytest

from apps.common.published import published
from apps.common.tables import records
from apps.imitation.evaluation import fraction_of_expert
from apps.imitation.tables import published_fractions, random_returns
from apps.imitation.tables.random_returns import ENVIRONMENTS, random_return, shipped
from core_models.errors import UserError


def test_the_scale_by_hand():
    facts = {(f.row, f.column): f.value for f in published("imitation") if f.table == "gail"}
    # returns of the result files; random actions are worth 21.61, -499.85, -200 and 19.4303
    assert facts["BC", "CartPole 1"] == pytest.approx((72.02 - 21.61) / (200 - 21.61), abs=1e-4)
    assert facts["GAIL", "CartPole 1"] == 1
    assert facts["GAIL", "Acrobot 1"] == pytest.approx((499.85 - 77.26) / (499.85 - 75.25), abs=1e-4)
    assert facts["GTAL", "MountainCar 4"] == pytest.approx((200 - 143.58) / (200 - 98.75), abs=1e-4)
    assert facts["GAIL", "Hopper 4"] == pytest.approx((3614.22 - 19.4303) / (3571.38 - 19.4303), abs=1e-4)
    assert facts["FEM", "Ant 4"] < -0.4  # worse than random
    assert len(facts) == 133


def test_rows_and_columns_are_those_of_the_paper():
    facts = [f for f in published("imitation") if f.table == "gail"]
    assert list(dict.fromkeys(f.row for f in facts if f.ours == "beside")) == ["BC", "FEM", "GTAL", "GAIL"]
    quoted = {(f.row, f.column) for f in facts if f.ours == "quoted"}
    assert quoted == {("GAIL (causal entropy 1e-3)", f"Reacher {n}") for n in (4, 11, 18)}
    columns = list(dict.fromkeys(f.column for f in facts))
    assert list(dict.fromkeys(column.split()[0] for column in columns)) == [
        own.name for own in ENVIRONMENTS if own.name != "CarRacing"
    ]
    assert [column for column in columns if column.startswith("Humanoid")] == [f"Humanoid {n}" for n in (80, 160, 240)]
    assert "Walker2d 4" in columns
    assert {(f.unit, f.better) for f in facts} == {("fraction of expert", "higher")}
    assert all(f.source for f in facts)
    assert not [f for f in published("imitation") if f.table == "infogail"]  # measured in another environment
    assert {f.ours for f in published("imitation") if f.table == "torcs"} == {"quoted"}


def test_figures_of_other_environments_are_quoted_only():
    library = [f for f in published("imitation") if f.table == "library"]
    assert {f.ours for f in library} == {"quoted"} and all(f.column.startswith("seals/") for f in library)
    assert {(f.row, f.column): f.value for f in library}["GAIL", "seals/Hopper-v0"] == 2671
    assert records([], library)  # a table can be made of it


def test_the_file_that_ships_is_what_the_command_writes(tmp_path):
    assert published_fractions.main(["--out", str(tmp_path / "again.csv")]) == 0
    ours = (files("apps.common.published") / "imitation_gail.csv").read_text(encoding="utf-8")
    assert (tmp_path / "again.csv").read_text() == ours


def test_random_returns_cover_the_table_and_no_time_limit_bears_on_cart_pole():
    assert [(own.name, own.environment, own.environment_kwargs) for own in shipped()] == [
        (own.name, own.environment, own.environment_kwargs) for own in ENVIRONMENTS
    ]
    assert {(own.episodes, own.seed) for own in shipped()} == {(100, 0)}
    assert next(own.longest for own in shipped() if own.name == "CartPole") < 200
    assert random_return("Ant-v4", {"use_contact_forces": True}) == pytest.approx(-62.744)
    for unknown in (("Ant-v4", {}), ("Ant-v5", None)):
        with pytest.raises(UserError, match="whose random return is known"):
            random_return(*unknown)
    assert fraction_of_expert(5.0, random=0.0, expert=10.0) == 0.5


def test_a_random_return_is_measured_again_to_the_digit(capsys):
    assert random_returns.main(["--only", "[CartPole]"]) == 0
    line = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    kept = next(own for own in shipped() if own.name == "CartPole")
    assert (float(line["mean"]), float(line["std"]), int(line["longest"])) == (kept.mean, kept.std, kept.longest)
    assert random_returns.main(["--only", "[CartPole, Chess]"]) == 2
    assert "expected names of CartPole" in capsys.readouterr().err
