# SPDX-License-Identifier: MIT
"""Real servers with gpt2-nano. `server` is one for the whole run; `start_server(*arguments)` starts another for one test. The binary is
$COUPLET (or $COUPLET_BIN), by default build/server/couplet."""
import os
import sys
from pathlib import Path

import pytest

if "COUPLET_BIN" in os.environ:
    os.environ.setdefault("COUPLET", os.environ["COUPLET_BIN"])
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tools"), str(Path(__file__).resolve().parent)]
from serving import Server, make_nano  # noqa: E402


# By the time they take: those that take long begin first, so that where files run beside each other none stands alone at the end.
LONGEST = ("test_train_command", "test_lifecycle", "test_runner", "test_inspect", "test_concurrency", "test_files", "test_chat", "test_client_commands",
           "test_jobs_api", "test_models", "test_one_engine", "test_train_service")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def stop_and_look(running):
    """Every server ends well when told to, whatever was done to it, and no sanitizer had a word to say."""
    status = running.stop() if running.process.poll() is None else 0
    output = running.output()
    running.__exit__()
    assert "Sanitizer" not in output and "runtime error" not in output, output[-20000:]
    assert status == 0, f"exit status {status}\n{output[-4000:]}"


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    """The folder of a gpt2-nano with random weights; its model id is "nano"."""
    return make_nano(tmp_path_factory.mktemp("model") / "nano")


@pytest.fixture(scope="session")
def server(nano):
    running = Server("--model", str(nano))
    yield running
    stop_and_look(running)


@pytest.fixture
def start_server(nano):
    """start_server(*arguments): a server of its own, stopped after the test. model=None: without one."""
    started = []

    def start(*arguments, model=nano, **options):
        started.append(Server(*(["--model", str(model)] if model else []), *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        stop_and_look(one)
