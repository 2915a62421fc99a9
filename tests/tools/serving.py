# SPDX-License-Identifier: MIT
"""One couplet server for a test: started on a free port, waited for, stopped by SIGTERM. Standard library only."""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUPLET = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))


def hold_port():
    """A socket that keeps a port of its own for a server that is to listen there: nobody else is given it, also while that server is started again."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server's: two may be bound to a port of which one listens
    held.bind(("127.0.0.1", 0))
    return held


def make_nano(folder, *options):
    """gpt2-nano with random weights and a byte vocabulary, as an HF directory; every token has a text. Options: make_nano.py's."""
    subprocess.run([sys.executable, str(ROOT / "tests" / "tools" / "make_nano.py"), "--vocab", "257", *options, str(folder)], check=True)
    return Path(folder)


class Server:
    def __init__(self, *arguments, ready_s=180, cwd=None):
        self.held = hold_port()
        self.port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = tempfile.TemporaryDirectory(prefix="couplet-test-")
        self.log = open(os.path.join(self.data.name, "log"), "w+")
        self.command = [COUPLET, "serve", "--port", str(self.port), "--data-dir", os.path.join(self.data.name, "data"), *arguments]
        self.ready_s = ready_s
        self.cwd = cwd
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=self.cwd)
        end = time.monotonic() + self.ready_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"couplet serve ended with {self.process.returncode}:\n{self.output()}")
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"couplet serve was not ready after {self.ready_s} s:\n{self.output()}")

    def add_key(self, name, *options):
        """Stores a key in this server's data directory, restarts the server with it and returns the key's text."""
        data = os.path.join(self.data.name, "data")
        out = subprocess.run([COUPLET, "keys", "add", name, "--data-dir", data, *options], capture_output=True, text=True, check=True)
        self.stop()
        self.start()
        return max(re.findall(r"[\w.-]+", out.stdout), key=len)

    def output(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def stop(self, seconds=120):
        """SIGTERM; returns the exit status (negative: died by that signal, None: had to be killed)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return None
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.held.close()
        self.log.close()
        self.data.cleanup()
