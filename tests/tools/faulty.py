# SPDX-License-Identifier: MIT
"""A server whose disk fails when a test says so, through tests/fault/fail_io.c. Standard library only."""
import os
from pathlib import Path

from serving import COUPLET, Server

LIBRARY = Path(COUPLET).resolve().parents[1] / "tests" / "fault" / "libfail_io.so"  # a sanitizer's build has none


class Faulty(Server):
    """What lies below its data directory fails as fail() says; with `command` in processes of that command alone ("train")."""

    def __init__(self, *arguments, command=None):
        self.faulty_command = command
        super().__init__(*arguments)

    def start(self):
        self.data_dir, self.control = Path(self.data.name) / "data", Path(self.data.name) / "control"
        self.fail("")
        extra = {"LD_PRELOAD": str(LIBRARY), "FAIL_IO_BELOW": str(self.data_dir), "FAIL_IO_CONTROL": str(self.control)}
        if self.faulty_command:
            extra["FAIL_IO_COMMAND"] = self.faulty_command
        os.environ.update(extra)
        try:
            super().start()
        finally:
            for name in extra:
                del os.environ[name]

    def fail(self, rule):
        fresh = self.control.with_suffix(".new")
        fresh.write_text(rule)
        self.control.with_name("control.hit").unlink(missing_ok=True)
        fresh.rename(self.control)

    def was_hit(self):
        return self.control.with_name("control.hit").exists()
