"""A real MariaDB for tests: one server process, and a fresh database whenever one is asked for.

The law: it listens on a socket file and a free loopback port, keeps its files in the test's folder,
and is gone when its `with` block ends.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.valkeys import free_port

START_SECONDS = 60.0  # about a second on a quiet machine

# Where packages keep the scripts that make a server's own tables.
SCRIPTS = (Path("/usr/share/mysql"), Path("/usr/share/mariadb"))

# The variable makes its root a user with a password (none) and not of the system.
FIRST = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"


class MariaDB:
    """One server process. Its files are small, and it does not wait for the disk."""

    def __init__(self, program: str, folder: Path) -> None:
        self._made = 0
        self._log = folder / "log"
        self.port = free_port()
        data = folder / "data"
        data.mkdir(parents=True)
        self._options = [program, "--no-defaults", "--user=root", f"--datadir={data}"]
        self._options += ["--innodb-log-file-size=32M", "--innodb-buffer-pool-size=64M"]
        self._options += ["--innodb-flush-log-at-trx-commit=0", "--aria-log-file-size=8M"]
        found = next(each for each in SCRIPTS if (each / "mysql_system_tables.sql").exists())
        names = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
        script = FIRST + "".join((found / name).read_text() for name in names)
        with self._log.open("ab") as log:
            subprocess.run(
                [*self._options, "--bootstrap"],
                input=script.encode(),
                stdout=log,
                stderr=log,
                check=True,
                timeout=START_SECONDS,
            )
        self._options += [f"--port={self.port}", "--bind-address=127.0.0.1"]
        self._options += [f"--socket={folder / 'socket'}", "--max-connections=500"]
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again with what it had; it answers on return."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._options, stdout=log, stderr=log)
        self._until_answers()

    def fresh(self) -> str:
        """The URL of a database that is empty."""
        self._made += 1
        name = f"test{self._made}"
        with self.connection() as connection:
            connection.cursor().execute(f"CREATE DATABASE {name}")
        return f"mysql+aiomysql://root@127.0.0.1:{self.port}/{name}"

    @contextmanager
    def connection(self, database: str | None = None) -> Iterator[pymysql.Connection[Any]]:
        """A plain connection, for looking from outside."""
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database
        )
        try:
            yield connection
        finally:
            connection.close()

    def _until_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.connection():
                    return
            except pymysql.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """As `kill -9` does it."""
        self.process.kill()
        self.process.wait(10)
