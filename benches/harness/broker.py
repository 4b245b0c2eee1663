"""A Kafka broker of one node, and topics on it."""
import json
import os
import pathlib
import re
import subprocess
import sys

from measuring import ROOT, free_port
from systems import CUSTOMERS

POM = ROOT / "tests" / "kafka" / "pom.xml"
LOG_SETTINGS = ROOT / "tests" / "kafka" / "log4j2.properties"
# The Python that has the client.
PYTHON = ROOT / "tests" / "clients" / ".venv" / "bin" / "python"
PRODUCE = pathlib.Path(__file__).resolve().parent / "produce.py"
GET = "run `bash -c 'source scripts/packages.sh && need_kafka && need_clients'` in the folder of the project, or scripts/test"
PARTITIONS = 4
# Messages a second and seconds: what is sent first, so that the group has begun and the caches are warm.
WARM_UP = (100, 5)
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
# As by default, but for what one node needs, a group that begins at once, and less memory. Like any broker, it does not wait for the disk.
SETTINGS = """
process.roles=broker,controller
node.id=0
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
"""


class Broker:
    """A broker on free ports, whose data ends with the folder."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory / "kafka"
        self.directory.mkdir()
        if not PYTHON.exists():
            sys.exit(f"{PYTHON} is missing: {GET}")
        clients, controllers = free_port(), free_port()
        self.address = f"127.0.0.1:{clients}"
        (self.directory / "settings").write_text(
            f"{SETTINGS}log.dirs={self.directory / 'data'}\nlisteners=CLIENT://{self.address},CONTROLLER://127.0.0.1:{controllers}\n"
            f"controller.quorum.voters=0@127.0.0.1:{controllers}\n"
        )
        command = self.java("kafka.tools.StorageTool", "format", "--config=settings", "--cluster-id=windfall-bench-cluster")
        if subprocess.run(command, **self.output(), check=False).returncode != 0:
            sys.exit(f"Kafka cannot prepare its folder:\n{self.log()}")
        # A session of its own: Ctrl-C must reach only the script, which then stops everything in order.
        self.process = subprocess.Popen(self.java("kafka.Kafka", "settings"), **self.output(), start_new_session=True)

    def java(self, program: str, *arguments: str) -> list[str]:
        options = [f"-Djava.io.tmpdir={self.directory}", "-Dbroker.log=log", f"-Dlog4j2.configurationFile={LOG_SETTINGS}"]
        return [*JAVA, *options, "-cp", str(jars() / "*"), program, *arguments]

    def output(self) -> dict:
        log = (self.directory / "output").open("a")
        return {"cwd": self.directory, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}

    def log(self) -> str:
        files = (self.directory / name for name in ("output", "log"))
        return "".join(file.read_text() for file in files if file.exists())

    def topic(self, name: str) -> "Topic":
        topic = Topic(self, name)
        topic.run("make", "--partitions", PARTITIONS)
        return topic

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Topic:
    def __init__(self, broker: Broker, name: str):
        self.broker, self.name = broker, name

    def run(self, command: str, *arguments) -> dict:
        """Runs a command of produce.py and returns its report."""
        with self.start(command, *arguments) as running:
            return running.report()

    def start(self, command: str, *arguments) -> "Producer":
        return Producer(self.broker, [PYTHON, PRODUCE, self.broker.address, self.name, command, *arguments])

    def send(self, prefix: str, *phases: tuple[float, float]) -> dict:
        """Sends purchases whose ids begin with the prefix: of each phase, so many messages a second, for so many seconds."""
        with self.sending(prefix, *phases) as running:
            return running.report()

    def sending(self, prefix: str, *phases: tuple[float, float]) -> "Producer":
        """Begins to send purchases."""
        spans = [part for rate, seconds in phases for part in ("--phase", f"{rate}:{seconds}")]
        return self.start("pace", "--customers", CUSTOMERS, "--prefix", prefix, *spans)

    def settings(self, group: str | None = None) -> dict[str, str]:
        """Returns the settings of a server that reads the topic. By default, its group has the name of the topic."""
        return {
            "WINDFALL__KAFKA__BROKERS": self.broker.address,
            "WINDFALL__KAFKA__FACTS_TOPICS": self.name,
            "WINDFALL__KAFKA__GROUP": group or self.name,
        }


class Producer:
    """A run of produce.py, which ends with the block that it is used in."""

    def __init__(self, broker: Broker, command: list):
        self.broker, self.command = broker, list(map(str, command))
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self) -> "Producer":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()

    def report(self) -> dict:
        """Waits for the end and returns the report."""
        output, errors = self.process.communicate()
        if self.process.returncode != 0:
            state = "ended" if self.broker.process.poll() is not None else "runs"
            sys.exit(f"{' '.join(self.command)} failed:\n{errors}\nThe broker {state}:\n{self.broker.log()}")
        return json.loads(output)


def jars() -> pathlib.Path:
    """Returns the folder of Kafka's jars, where the tests have it."""
    version = re.search("<kafka.version>(.*?)<", POM.read_text()).group(1)
    folder = os.environ.get("WINDFALL_TEST_KAFKA", pathlib.Path.home() / ".cache" / "windfall-kafka" / version)
    if not pathlib.Path(folder).is_dir():
        sys.exit(f"Kafka is not in {folder}: {GET}")
    return pathlib.Path(folder).resolve()
