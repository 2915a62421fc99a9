# SPDX-License-Identifier: MIT
"""Crashes and full disks. The binary is $COUPLET, by default build/server/couplet; named places need one built with -Dfailpoints=true."""
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tools"), str(Path(__file__).resolve().parent)]
from serving import make_nano  # noqa: E402


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    """A gpt2 whose whole state of training is 900 KiB."""
    return make_nano(tmp_path_factory.mktemp("model") / "nano", "--layers", "1", "--width", "64", "--ctx", "128")
