"""Shared by the scripts that measure: the path of the binary, free ports, and a temporary PostgreSQL server."""
import glob
import os
import pathlib
import shutil
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("WINDFALL_BINARY", str(ROOT / "target" / "dist" / "windfall"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A temporary cluster on a free port, with fsync. `settings` are added to those of PostgreSQL's default configuration."""

    def __init__(self, directory: pathlib.Path, settings: dict[str, str] | None = None):
        self.bin = pathlib.Path(shutil.which("initdb") or sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1]).resolve().parent
        self.port = free_port()
        self.data = directory / "postgres"
        self.data.mkdir()
        # PostgreSQL refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.user:
            directory.chmod(0o755)
            shutil.chown(self.data, "postgres")
        self.run("initdb", "-A", "trust", "-U", "postgres", "-D", self.data / "d")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.data}"
        options += "".join(f" -c {name}={value}" for name, value in (settings or {}).items())
        self.run("pg_ctl", "-w", "-D", self.data / "d", "-l", self.data / "log", "-o", options, "start")

    def run(self, program: str, *arguments) -> None:
        subprocess.run([*self.user, str(self.bin / program), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def url(self, database: str = "postgres") -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def pid(self) -> int:
        """Returns the process of the server, whose children are its back ends."""
        return int((self.data / "d" / "postmaster.pid").read_text().splitlines()[0])

    def psql(self, sql: str, database: str = "postgres") -> str:
        command = ["psql", "-qAtX", "-F", "\t", self.url(database), "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def psql_file(self, file: pathlib.Path, database: str) -> None:
        command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", self.url(database), "-f", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.data / "d", "-m", "fast", "stop")
