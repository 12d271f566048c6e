"""Which digits a demonstration takes."""

import pytest

from apps.common import demo_data
from core_models.data import NoSourceError, load
from core_models.errors import UserError


def test_out_of_reach_of_mnist_it_takes_the_small_digits_and_says_why_on_one_line(monkeypatch, capsys):
    def out_of_reach(name):
        if name == "mnist":
            raise NoSourceError("no network\nand no files")
        return load(name)

    monkeypatch.setattr(demo_data, "load", out_of_reach)
    assert demo_data.mnist_or_digits("auto").name == "digits"
    told = capsys.readouterr().err
    assert told == "MNIST is out of reach (no network and no files); using the 8 x 8 digits instead\n"
    with pytest.raises(NoSourceError):  # asked for by name, nothing stands in for it
        demo_data.mnist_or_digits("mnist")


def test_other_data_are_refused():
    with pytest.raises(UserError, match="--data: expected auto, mnist or digits, got 'fashion-mnist'"):
        demo_data.mnist_or_digits("fashion-mnist")
