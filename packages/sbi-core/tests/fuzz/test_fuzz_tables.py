"""A table gives the same objects whole, in parts and from memory, whatever its format."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from table_files import FORMATS, check


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", FORMATS)
def test_all_readers_give_the_objects_of_a_random_table(form, seed, tmp_path):
    check(seed, form, tmp_path)
