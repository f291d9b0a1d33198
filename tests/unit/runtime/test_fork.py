"""Forking out of a running event loop. Each test runs a program of its own, single-threaded as a supervisor is."""

import os
import signal
import subprocess
import sys
import textwrap
import time


def run(program: str) -> str:
    prelude = """
        import asyncio, os, signal, socket, sys, time
        from swarm_agents.runtime.process import fork
        def say(*words):
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    """
    source = textwrap.dedent(prelude) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_child_has_nothing_of_its_parents_loop_and_the_loop_goes_on() -> None:
    out = run("""
        async def main():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            loop.add_signal_handler(signal.SIGTERM, say, "parent heard SIGTERM")
            loop.add_signal_handler(signal.SIGCHLD, lambda: ended.done() or ended.set_result(None))
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            ours, theirs = socket.socketpair()
            def child():
                kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2
                         and os.path.exists(f"/proc/self/fd/{fd}")]
                kept = [k for k in kinds if k != "/dev/null" and not k.startswith("/proc/")]
                say("kept", len(kept), kept[0].partition(":")[0])
                os.kill(os.getpid(), signal.SIGTERM)
                asyncio.run(asyncio.sleep(0))
                say("child lives, and has a loop of its own")
                theirs.sendall(b"x")
                return 3
            pid = fork(child, keep=[theirs.fileno()], name="swarm-agent")
            await ended
            _, status = os.waitpid(pid, 0)
            say("status", os.waitstatus_to_exitcode(status), ours.recv(1))
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            say("served", await reader.read())
            writer.close()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
            server.close()
            ours.close(); theirs.close()
        asyncio.run(main())
    """)
    assert out.splitlines() == [
        "kept 1 socket",
        "child lives, and has a loop of its own",
        "status 3 b'x'",
        "served b''",
        "parent heard SIGTERM",
    ]


def test_a_child_that_raises_ends_with_a_status_and_runs_nothing_of_the_parents_clean_up() -> None:
    source = """
        from swarm_agents.runtime.process import fork
        import os, sys
        try:
            pid = fork(lambda: 1 / 0, keep=[], name="x")
        finally:
            os.write(1, b"clean-up\\n")
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stdout == "clean-up\n"
    assert "ZeroDivisionError" in done.stderr


def test_a_child_dies_with_its_parent() -> None:
    source = """
        from swarm_agents.runtime.process import fork
        import os, time
        print(fork(lambda: time.sleep(60), keep=[], name="x"), flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_parallel_kernel_runs_in_a_fork_of_a_process_that_has_run_one(tmp_path) -> None:
    """Numba's OpenMP layer ends such a child; this is why agents run on `workqueue`."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import os
        import numpy as np
        from numba import njit, prange, threading_layer

        @njit(parallel=True)
        def total(values):
            found = 0.0
            for i in prange(values.size):
                found += values[i]
            return found

        values = np.ones(100_000)
        total(values)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if total(values) == values.size and threading_layer() == "workqueue" else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """)
    )
    environ = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, str(program)], env=environ, check=True, timeout=100)
