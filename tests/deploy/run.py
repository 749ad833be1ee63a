"""Compose, Kubernetes, systemd and Docker files, and an export, against what reads them.

    scripts/deploy

No image is built: the build stage's commands run in a fresh environment of this machine instead,
and what they make is started as the image would start it.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dockerfile import build, environment, read

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "config"
TIMEOUT_S: Final = 60.0
START_S: Final = 20.0


class DeployError(Exception):
    """A file is not what its reader wants."""


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What the program printed. Raises `DeployError` where it failed."""
    ran = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if ran.returncode != 0:
        raise DeployError(f"{' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def compose(cache: Path) -> None:
    """Against the Compose specification's schema."""
    checker = cache / "bin" / "check-jsonschema"
    run(checker, "--builtin-schema", "vendor.compose-spec", CONFIG / "compose.yaml")


def kubernetes(cache: Path) -> None:
    """Against the API server's schemas, unknown members refused."""
    run(cache / "bin" / "kubernetes-validate", "--strict", CONFIG / "kubernetes-sidecar.yaml")


def unit(cache: Path) -> None:
    """By systemd itself; the program stands elsewhere here."""
    here = Path(sys.executable).with_name("wsproxy")
    text = (CONFIG / "wsproxy.service").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wsproxy.service")
        path.write_text(text.replace("/opt/wsproxy/bin/wsproxy", str(here)), "utf-8")
        run("systemd-analyze", "verify", path)
        shown = run("systemd-analyze", "security", "--offline=true", "--threshold=20", path)
    print(f"  {shown.strip().splitlines()[-1].encode('ascii', 'ignore').decode().strip()}")


def lint(cache: Path) -> None:
    """By dockerfilelint."""
    run(cache / "node_modules" / ".bin" / "dockerfilelint", ROOT / "Dockerfile")


def image(cache: Path) -> None:
    """The build stage, then its program with the last stage's environment and health check."""
    instructions = read(ROOT / "Dockerfile")
    health = next(i.value for i in instructions if i.name == "HEALTHCHECK")
    words = shlex.split(health.partition("CMD")[2].strip().strip("[]").replace(",", " "))
    with tempfile.TemporaryDirectory() as folder:
        made = build(ROOT, Path(folder))
        given = environment(instructions)
        env = {
            **given,
            "PATH": f"{made / 'bin'}:{os.environ['PATH']}",
            "HOME": folder,
            "XDG_STATE_HOME": folder,
            "WSPROXY_LISTEN": f"127.0.0.1:{free_port()}",
        }
        with subprocess.Popen([made / "bin" / "wsproxy", "serve"], env=env) as daemon:
            try:
                until_healthy([str(made / "bin" / words[0]), *words[1:]], env)
            finally:
                daemon.terminate()
    if daemon.returncode != 0:
        raise DeployError(f"the daemon ended with {daemon.returncode}")


def har(cache: Path) -> None:
    """A trace of the example agent, by the validator of HAR 1.2."""
    here = Path(sys.executable).with_name("wsproxy")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_STATE_HOME": folder, "OPENAI_API_KEY": "any"}
        simulated = [here, "simulate", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(simulated, stdout=subprocess.PIPE, text=True) as api:
            try:
                assert api.stdout is not None
                upstream = api.stdout.readline().split()[-1]
                agent = [sys.executable, ROOT / "docs" / "examples" / "agent.py"]
                run(here, "run", "--upstream", upstream, "--", *agent, env=env)
            finally:
                api.terminate()
        exported = Path(folder, "trace.har")
        run(here, "trace", "export", "--format", "har", "--output", exported, env=env)
        run("node", "-e", _IS_HAR, exported, env={**env, "NODE_PATH": str(cache / "node_modules")})


#: Prints what is wrong, and fails, where the file is no HAR.
_IS_HAR: Final = """
const log = JSON.parse(require("fs").readFileSync(process.argv[1]));
const wrong = (found) => { console.log(JSON.stringify(found.errors)); process.exit(1); };
require("har-validator").har(log).catch(wrong);
"""


def until_healthy(command: list[str], env: Mapping[str, str]) -> None:
    """Ask until the health check passes."""
    deadline = time.monotonic() + START_S
    while subprocess.run(command, env=env, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise DeployError(f"not healthy after {START_S:.0f} s")
        time.sleep(0.2)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


CHECKS: Final[tuple[Callable[[Path], None], ...]] = (compose, kubernetes, unit, lint, image, har)


def main() -> int:
    """The exit code: 0, or 1 at the first file that is wrong."""
    for check in CHECKS:
        print(f"{check.__name__}: {(check.__doc__ or '').partition('.')[0]}", flush=True)
        try:
            check(Path(sys.argv[1]))
        except (DeployError, subprocess.SubprocessError) as error:
            print(f"{check.__name__}: {error}", file=sys.stderr)
            return 1
    print("all files are right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
