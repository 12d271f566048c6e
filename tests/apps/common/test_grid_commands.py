"""Commands of single cells told as few: together they make the same cells, and no more."""

import json
import shlex
from itertools import product

from apps.common.cells import read_cells, split_stale
from apps.common.grid_commands import merged
from apps.common.provenance import ROOT

GRIDS = {
    "genapps semi-supervised benchmark": ("methods", "labels"),
    "genapps pixeldefend benchmark": ("rows", "eps"),
    "genapps imitation benchmark": ("environments", "methods", "trajectories", "seeds"),
    "genapps imitation modes": ("environments", "methods", "seeds"),
    "genapps compressed-sensing benchmark": ("methods", "m", "seeds"),
    "genapps compressed-sensing learned": ("methods", "m", "seeds"),
}
"""Of which options a verb makes every combination."""


def cells_of(commands):
    """Returns the command of each cell that commands of grids make."""
    found = set()
    for command in commands:
        words = shlex.split(command)
        axes = [f"--{axis}" for axis in GRIDS.get(" ".join(words[:3]), ())]
        at = [i + 1 for i, word in enumerate(words) if word in axes]
        several = [[json.dumps([value]) for value in json.loads(words[i])] for i in at]
        for values in product(*several):
            own = list(words)
            for i, value in zip(at, values, strict=True):
                own[i] = value
            if "--first_draw" in own:
                n, first = own.index("--draws") + 1, own.index("--first_draw") + 1
                for draw in range(int(own[first]), int(own[first]) + int(own[n])):
                    found.add((*own[:n], "1", *own[n + 1 : first], str(draw), *own[first + 1 :]))
            else:
                found.add(tuple(own))
    return found


def test_a_grid_is_one_command():
    single = [f"genapps b --methods '[\"{row}\"]' --m '[{m}]'" for m in (100, 25, 50) for row in ("B, C", "A")]
    assert merged(single) == ["genapps b --methods '[\"B, C\", \"A\"]' --m '[25, 50, 100]'"]


def test_what_is_no_whole_grid_stays_several():
    single = ["g --rows '[A]' --eps '[8]'", "g --rows '[A]' --eps '[25]'", "g --rows '[B]' --eps '[8]'", "g --other 1"]
    assert merged(single) == ["g --rows '[\"A\"]' --eps '[8, 25]'", "g --rows '[\"B\"]' --eps '[8]'", "g --other 1"]
    apart = ["g --m '[1]' --steps 5", "g --m '[2]' --steps 6"]
    assert merged(apart) == apart


def test_what_one_command_would_make_of_two_lists_stays_several():
    """A worst case is made of the attacks that a command names; the sanity table takes the first budget alone."""
    for apart in (
        ["g --rows '[\"A\"]' --attacks '[\"BPDA\"]'", "g --rows '[\"A\"]' --attacks '[\"Square\"]'"],
        ["g --eps '[8]' --tables '[sanity]'", "g --eps '[25]' --tables '[sanity]'"],
        ["g --m '[a: b'", "g --m '[2020-01-01]'", "g --m 5"],
    ):
        assert merged(apart) == apart


def test_draws_that_follow_one_another_are_one_command():
    draws = [f"g --labels '[100]' --draws 1 --first_draw {draw}" for draw in (2, 0, 1, 4)]
    assert merged(draws) == [
        "g --labels '[100]' --draws 3 --first_draw 0",
        "g --labels '[100]' --draws 1 --first_draw 4",
    ]
    more = [*draws[:3], *(draw.replace("100", "600") for draw in draws[:3])]
    assert merged(more) == ["g --labels '[100, 600]' --draws 3 --first_draw 0"]


def test_the_commands_that_are_told_make_the_standing_cells_and_no_others():
    current, _ = split_stale(read_cells(ROOT / "docs" / "results"))
    by_table = {}
    for cell in current:
        if cell.command:
            by_table.setdefault((cell.app, cell.table), []).append(cell.command)
    assert by_table
    for commands in by_table.values():
        told = merged(commands)
        assert cells_of(told) == cells_of(line for command in commands for line in merged([command]))
        assert merged(told) == told and len(told) <= len(set(commands))
