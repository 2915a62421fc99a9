# SPDX-License-Identifier: MIT
"""A short kill campaign (kill_campaign.py); the long one is run by hand."""
from kill_campaign import campaign


def test_a_short_campaign(tmp_path):
    figures = campaign(kills=8, seed=5, minutes=3, folder=tmp_path)
    assert figures["kills"] >= 8 and figures["jobs_succeeded"] > 0 and figures["weights_compared"] > 0
