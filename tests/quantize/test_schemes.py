from __future__ import annotations

from contextlib import contextmanager

import pytest

from kdeploy import events
from kdeploy.errors import Unavailable, UserError
from kdeploy.machine.processor import MEANINGFUL
from kdeploy.quantize.schemes import SCHEMES, choose_scheme


@pytest.mark.parametrize(
    ("instruction_sets", "name"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "x86-vnni"),
        ({"avx2", "avx_vnni"}, "x86-vnni"),
        ({"avx2", "avx512f"}, "x86-avx2"),  # AVX-512 without VNNI saturates as AVX2 does
        ({"avx2"}, "x86-avx2"),
        ({"asimd", "asimddp", "i8mm"}, "arm64"),
        ({"asimd"}, "arm64"),
    ],
)
def test_auto_reads_the_instruction_sets_and_says_why(instruction_sets, name):
    said = []

    class Listener:
        def decided(self, what, value, why):
            said.append((what, value, why))

        @contextmanager
        def task(self, description, total):
            yield

    with events.listening(Listener()):
        assert choose_scheme("auto", instruction_sets).name == name
    ((what, value, why),) = said
    assert (what, value) == ("int8 scheme", name)
    assert why.startswith("this processor has ")


def test_a_name_is_taken_for_another_machine_too():
    assert choose_scheme("arm64", {"avx2"}) is SCHEMES["arm64"]


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"There is no int8 scheme 'x86-vni'\. Did you mean 'x86-vnni'\?"):
        choose_scheme("x86-vni", {"avx2"})


def test_a_processor_that_nothing_suits():
    with pytest.raises(Unavailable, match="No int8 scheme suits this processor"):
        choose_scheme("auto", {"sve2-of-another-world"})


def test_the_instruction_sets_are_ones_that_the_machine_room_reports():
    assert frozenset().union(*(scheme.instruction_sets for scheme in SCHEMES.values())) <= MEANINGFUL


def test_every_scheme_has_the_name_it_is_found_by():
    assert {name: scheme.name for name, scheme in SCHEMES.items()} == {name: name for name in SCHEMES}
