"""Shared by the scripts that measure: the path of the binary, and a temporary PostgreSQL server."""
import glob
import os
import pathlib
import shutil
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("WINDFALL_BINARY", str(ROOT / "target" / "dist" / "windfall"))


class Postgres:
    """A temporary cluster on a free port, with fsync."""

    def __init__(self, directory: pathlib.Path):
        self.bin = pathlib.Path(shutil.which("initdb") or sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1]).resolve().parent
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data = directory / "postgres"
        self.data.mkdir()
        # PostgreSQL refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.user:
            directory.chmod(0o755)
            shutil.chown(self.data, "postgres")
        self.run("initdb", "-A", "trust", "-U", "postgres", "-D", self.data / "d")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.data}"
        self.run("pg_ctl", "-w", "-D", self.data / "d", "-l", self.data / "log", "-o", options, "start")

    def run(self, program: str, *arguments) -> None:
        subprocess.run([*self.user, str(self.bin / program), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def psql(self, sql: str, database: str = "postgres") -> str:
        url = f"postgres://postgres@127.0.0.1:{self.port}/{database}"
        return subprocess.run(["psql", "-qAtX", "-F", "\t", url, "-c", sql], check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.data / "d", "-m", "fast", "stop")
