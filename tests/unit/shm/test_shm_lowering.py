"""What the atomics become: the instructions of both architectures, read from the code that the compiler makes.

The machine's own code comes from Numba. For the other architecture the very same LLVM IR is compiled by LLVM for that
target, because what must be right is the ordering that the IR asks for and what LLVM makes of it there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import llvmlite.binding as llvm
import pytest
from llvmlite import ir
from numba import int64, njit

from swarm_agents.shm import atomics, lowering

TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


@njit
def load(address):
    return atomics.load(address)


@njit
def store(address, value):
    atomics.store(address, value)


@njit
def peek(address):
    return atomics.peek(address)


@njit
def poke(address, value):
    atomics.poke(address, value)


@njit
def cas(address, expected, desired):
    return atomics.cas(address, expected, desired)


@njit
def add(address, operand):
    return atomics.add(address, operand)


@njit
def or_(address, operand):
    return atomics.or_(address, operand)


@njit
def xand(address, operand):
    return atomics.xand(address, operand)


@njit
def swap(address, operand):
    return atomics.swap(address, operand)


@njit
def fence():
    atomics.fence()


@njit
def spin(address):
    while atomics.load(address) == 0:
        pass


@njit
def publish(address, value):
    atomics.poke(address, value)
    atomics.store(address + 8, 1)


@njit
def dekker(mine, theirs):
    atomics.store(mine, 1)
    atomics.fence()
    return atomics.load(theirs)


@njit
def wait(address, expected, timeout):
    return atomics.futex_wait(address, expected, timeout)


def _ir(function) -> str:
    """The optimised LLVM IR of a function with integers for arguments."""
    signature = (int64,) * function.py_func.__code__.co_argcount
    function.compile(signature)
    return str(function.inspect_llvm(signature))


def _assembly(text: str, architecture: str, features: str = "") -> str:
    """The code that LLVM makes of a module's IR for an architecture."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = TRIPLES[architecture]
    target = llvm.Target.from_triple(triple)
    machine = target.create_target_machine(opt=3, reloc="pic", features=features)
    text = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', text)
    text = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', text)
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    return str(machine.emit_assembly(llvm.parse_assembly(text)))


def _body(function, architecture: str, features: str = "") -> list[str]:
    """The instructions of the function itself, without those of the wrappers that Python calls."""
    assembly = _assembly(_ir(function), architecture, features)
    name = function.py_func.__name__
    found = re.search(rf"^(_ZN[^\n:]*{name}[^\n:]*):[^\n]*\n(.*?)\.Lfunc_end", assembly, re.S | re.M)
    assert found, f"no code of {name}:\n{assembly}"
    lines = (line.split("//")[0].split("#")[0].strip() for line in found[2].splitlines())
    return [re.sub(r"\s+", " ", line) for line in lines if line and (line[0] != "." or line[-1] == ":")]


def _has(code: list[str], pattern: str) -> bool:
    return any(re.match(pattern, line) for line in code)


X86 = {
    load: [r"movq \(%r\w+\), %r"],
    store: [r"movq %r\w+, \(%r"],
    cas: [r"lock|lock cmpxchgq"],
    add: [r"lock"],
    or_: [r"lock"],
    xand: [r"lock"],
    swap: [r"xchgq"],
    fence: [r"mfence|lock"],
    dekker: [r"mfence|lock|xchgq"],
}
ARM = {
    load: [r"ldar x"],
    store: [r"stlr x"],
    cas: [r"ldaxr x", r"stlxr w"],
    add: [r"ldaxr x", r"stlxr w"],
    or_: [r"ldaxr x", r"stlxr w"],
    xand: [r"ldaxr x", r"stlxr w"],
    swap: [r"ldaxr x", r"stlxr w"],
    fence: [r"dmb ish$"],
    dekker: [r"stlr x", r"dmb ish$", r"ldar x"],
}
# The optimiser may have made a loop around a compare-and-swap of the two that x86-64 has no instruction for.
ARM_LSE = {cas: r"casal x", add: r"ldaddal x", or_: r"(ldset|cas)al x", xand: r"(ldclr|cas)al x", swap: r"swpal x"}


@pytest.mark.parametrize("function", X86, ids=lambda f: f.py_func.__name__)
def test_x86_64_gets_the_instruction_that_orders(function):
    code = _body(function, "x86_64")
    for pattern in X86[function]:
        assert _has(code, pattern), code


@pytest.mark.parametrize("function", ARM, ids=lambda f: f.py_func.__name__)
def test_aarch64_gets_acquire_and_release_instructions_and_full_barriers(function):
    code = _body(function, "aarch64")
    at = -1
    for pattern in ARM[function]:
        at = next((index for index in range(at + 1, len(code)) if re.match(pattern, code[index])), None)
        assert at is not None, code


@pytest.mark.parametrize("function", ARM_LSE, ids=lambda f: f.py_func.__name__)
def test_aarch64_with_large_system_extensions_gets_one_instruction_with_both_orders(function):
    assert _has(_body(function, "aarch64", "+lse"), ARM_LSE[function])


@pytest.mark.parametrize("architecture", TRIPLES)
def test_plain_accesses_cost_no_ordering(architecture):
    for function in (peek, poke):
        code = " ".join(_body(function, architecture))
        assert not re.search(r"lock|fence|xchg|ldar|stlr|dmb", code), code


@pytest.mark.parametrize("architecture", TRIPLES)
def test_a_word_is_read_anew_at_every_turn_of_a_loop(architecture):
    code = _body(spin, architecture)
    reads = [i for i, line in enumerate(code) if re.match(r"(ldar x|cmpq \$0, \(|movq \()", line)]
    labels = {line[:-1]: i for i, line in enumerate(code) if line.endswith(":")}
    jumps = [(i, line.split()[-1]) for i, line in enumerate(code) if re.match(r"(j|b\.|b |cbz|cbnz|tb)", line)]
    assert any(labels.get(target, len(code)) <= read < i for i, target in jumps for read in reads), code


def test_on_aarch64_what_is_written_plainly_before_a_store_is_seen_before_it():
    code = _body(publish, "aarch64")
    plain = next(i for i, line in enumerate(code) if line.startswith("str x"))
    assert plain < next(i for i, line in enumerate(code) if line.startswith("stlr x"))


@pytest.mark.parametrize(("architecture", "hint"), [("x86_64", "pause"), ("aarch64", "yield|hint\\s+#1")])
def test_the_spin_hint_is_the_architectures_own(architecture, hint):
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "spin_hint")
    builder = ir.IRBuilder(function.append_basic_block())
    lowering.emit_pause(builder, architecture)
    builder.ret_void()
    text = 'target triple = "?"\ntarget datalayout = "?"\n' + re.sub(r"^target .*\n", "", str(module), flags=re.M)
    assert re.search(hint, _assembly(text, architecture))


@pytest.mark.parametrize(("architecture", "number"), [("x86_64", 202), ("aarch64", 98)])
def test_the_futex_is_reached_by_each_architectures_own_number(architecture, number):
    # <asm/unistd_64.h> of x86 and <asm-generic/unistd.h>, which aarch64 uses
    assert lowering.SYS_FUTEX[architecture] == number


def test_a_futex_call_is_the_shared_one_and_goes_through_the_c_library():
    text = _ir(wait)
    call = re.search(r"call i64 \([^)]*\) @syscall\(([^)]*)\)", text) or re.search(
        r"call i64 @syscall\(([^)]*)\)", text
    )
    assert call, text
    arguments = [part.strip() for part in call[1].split(",")]
    # FUTEX_WAIT is 0; with FUTEX_PRIVATE_FLAG (128) set, waiters of other processes would never be found
    assert re.search(r"\b0$", arguments[2]), arguments


def test_a_fresh_process_with_a_warm_cache_compiles_nothing(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from numba.core import event

        class Count(event.Listener):
            compiled = []
            def on_start(self, event): self.compiled.append(event.data["dispatcher"].py_func.__qualname__)
            def on_end(self, event): pass

        event.register("numba:compile", Count())
        from swarm_agents.shm.board import Board, Geometry
        from swarm_agents.shm.jit import direct
        from swarm_agents.shm import hot
        from swarm_agents.shm.ring import Ring
        board = Board.open(Path(sys.argv[1]), Geometry(256, 1 << 20, 8), swarm_uid="u")
        agent, client = board.join("agent", "compute"), board.join("client", "client")
        worker, port = board.worker(agent), board.port(client)
        for size in (0, 10, 5000):
            port.submit("core.echo", (b"x" * size,))
            claim = worker.claim(1.0)
            worker.commit(claim, claim.args)
            assert port.wait(1.0)
            assert port.poll()[0].value == [b"x" * size]
        board.heartbeat(agent)
        board.declare_dead(agent.index, agent.epoch)
        board.sweep(); board.reap(); board.stats()
        direct(hot.now_ns)()
        ring = Ring.create(Path(sys.argv[1]) / "ring")
        with ring.sender() as tx, ring.receiver() as rx:
            tx.send(b"x")
            assert rx.receive() == b"x"
        board.leave(client)
        board.leave(agent)
        print(len(Count.compiled), *Count.compiled)
        """
    )

    def run(name: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    run("first")
    assert run("second") == ["0"]
