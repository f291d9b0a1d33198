"""What hubs and clients say to each other: the messages, their limits, and the version that they all belong to.

A message is a ZeroMQ multipart (see `frames`): `MAGIC` and one byte of version, a msgpack header which is one of the
structs below, and then, for `Submit` and `Answer`, the payload as it lies on a board: the value's own header and its
arrays, a frame each. Whoever forwards a task reads the header and passes the rest on as it came.

    client                         hub                            other hub
      Hello(client)  ───────────▶
                     ◀───────────  Welcome(window)
      Submit + args  ───────────▶  (its board, or) Submit + args ─────────▶
                     ◀───────────  Accepted, if it takes long ◀───────────  Accepted
                     ◀───────────  Answer + value          ◀──────────────  Answer + value
      Ack            ───────────▶  (forgets it)        Ack ───────────────▶

Invariants: a task keeps its id on every retry and every hop, so that a repeated `Submit` is recognised; the receiver of
an `Answer` sends `Ack`, and until then the sender keeps it; a peer has at most `window` tasks unanswered. Times on the
wire are spans, never instants: two nodes' clocks need not agree.

The structs are arrays, not maps: a field is added at the end with a default, and older peers skip it. Anything else is
a new `WIRE_VERSION`. Rejected: a version inside the header (it could not be read by a peer for whom the header's form
changed), and Protocol Buffers (a compiler in the build for sixteen structs).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "ANSWER_ROOM",
    "MAGIC",
    "MAX_FRAMES",
    "MAX_HEADER_BYTES",
    "WIRE_VERSION",
    "Accepted",
    "Ack",
    "Answer",
    "Bye",
    "Cancel",
    "Confirmed",
    "Credit",
    "Heartbeat",
    "Hello",
    "Load",
    "Message",
    "Mirrored",
    "Query",
    "Recall",
    "Refusal",
    "Report",
    "Submit",
    "TaskId",
    "Wanted",
    "Welcome",
    "Withdrawn",
]

MAGIC = b"ASW"
WIRE_VERSION = 1
#: A header is a few hundred bytes; the longest is an answer that carries a traceback.
MAX_HEADER_BYTES = 1 << 20
#: What a peer takes that does not say how many bytes of unacknowledged answers it takes.
ANSWER_ROOM = 64 << 20
#: Frames of one message: greeting, header, the value's header and its arrays.
MAX_FRAMES = 1024

_U64 = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Span = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=256)]
#: What a checkpoint belongs to, and which of those of its key it is.
Key = Annotated[str, Meta(max_length=512)]
Number = Annotated[int, Meta(ge=0, le=1 << 48)]

#: The submitter's session and its running number there: unique for as long as anything remembers it.
TaskId = tuple[_U64, _U64]
TaskIds = Annotated[tuple[TaskId, ...], Meta(max_length=4096)]


class _Message(Struct, frozen=True, array_like=True, gc=False):
    pass


class Hello(_Message, frozen=True, tag="hello"):
    """The first message of a connection, and again after every reconnection."""

    peer: Literal["client", "hub"]
    #: UID of the swarm that the peer means; empty: whichever this is.
    swarm: Name
    #: The same for as long as the peer lives: its answers are kept under it while it is away.
    session: _U64
    name: Name = ""
    #: The hub's node; a client has none.
    node: Name = ""
    #: Bytes of answers that it is willing to have on the way, sent and not acknowledged.
    room: Count = ANSWER_ROOM


class Welcome(_Message, frozen=True, tag="welcome"):
    """The hub knows the peer. Answers not acknowledged before follow at once."""

    swarm: Name
    uid: Name
    node: Name
    #: Another number after each start of the hub: it says whether the hub can still know this session's tasks.
    instance: _U64
    window: Count
    max_message_bytes: Count
    #: Seconds between heartbeats; five silent ones and the connection is given up.
    heartbeat: Span
    #: Bytes of arguments that the peer may have unanswered; with `window`, its first credit.
    bytes: Count = 1 << 40
    #: Whether it keeps other nodes' checkpoints: nobody else is sent any.
    copies: bool = False
    #: Whether it answers `Wanted`.
    finds: bool = False
    #: Whether it answers `Recall`.
    recalls: bool = False


class Submit(_Message, frozen=True, tag="submit"):
    """A task; its arguments follow as payload."""

    task: TaskId
    kernel: Annotated[str, Meta(min_length=1, max_length=256)]
    lane: Annotated[int, Meta(ge=0, le=3)]
    #: Seconds until its deadline.
    budget: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None
    #: Nodes that it has left behind; a hub does not forward it any more at `MAX_HOPS`.
    hops: Annotated[int, Meta(ge=0, le=255)] = 0
    #: How often it was begun before, on nodes that it has left behind: there may be a checkpoint of it there.
    begun: Annotated[int, Meta(ge=0, le=255)] = 0


class Accepted(_Message, frozen=True, tag="accepted"):
    """The tasks are on the hub's board."""

    tasks: TaskIds


class Answer(_Message, frozen=True, tag="answer"):
    """The end of a task: the value follows as payload, or `error` says why there is none."""

    task: TaskId
    error: dict[str, str] | None = None
    agent: Name = ""
    attempts: Count = 1
    #: Seconds that it lay on the board, and that the kernel ran.
    queued: Span = 0.0
    run: Span = 0.0
    #: Nodes that the task left behind; the answer of the one that computed it says how many.
    hops: Annotated[int, Meta(ge=0, le=255)] = 0
    #: The node of `agent`.
    node: Name = ""


class Ack(_Message, frozen=True, tag="ack"):
    """The answers have come: forget them."""

    tasks: TaskIds


class Cancel(_Message, frozen=True, tag="cancel"):
    """Nobody waits for the task any more."""

    task: TaskId


class Load(_Message, frozen=True):
    """What a node has to do and to do it with: the ground on which others send it work."""

    #: Live compute agents, and those of them with nothing in hand.
    workers: Count = 0
    idle: Count = 0
    #: Tasks waiting, by lane, critical first.
    depth: Annotated[tuple[Count, ...], Meta(max_length=4)] = (0, 0, 0, 0)
    #: Slots that the board has left.
    room: Count = 0
    #: Seconds that a task has run there on average of late; 0: nothing has run yet.
    run_mean: Span = 0.0
    #: Bytes that the arena has left.
    room_bytes: Count = 1 << 40
    #: The most urgent lane of which it refuses tasks for overload; 4: none.
    refuses: Annotated[int, Meta(ge=0, le=4)] = 4


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """I live; a hub adds its load. Each is echoed with `echo` set, which gives the round-trip time."""

    sent: Span
    echo: bool = False
    load: Load | None = None


class Credit(_Message, frozen=True, tag="credit"):
    """From now on the peer may have this many tasks, and bytes of their arguments, unanswered."""

    window: Count
    bytes: Count = 1 << 40


class Refusal(_Message, frozen=True, tag="error"):
    """A task (or, with none named, the connection) is refused; `code` is an error's, see `swarm_agents.errors`."""

    code: Name
    message: Text
    task: TaskId | None = None
    #: Seconds after which the same may be tried again; 0: it would be refused again.
    retry_after: Span = 0.0


class Query(_Message, frozen=True, tag="query"):
    """Asks for what `GET /v1/swarm` shows."""

    number: _U64


class Report(_Message, frozen=True, tag="report"):
    """Answers a `Query`: JSON follows as payload."""

    number: _U64


class Bye(_Message, frozen=True, tag="bye"):
    """The peer leaves on purpose: its tasks are cancelled and its answers forgotten."""


class Mirrored(_Message, frozen=True, tag="mirrored"):
    """A task's checkpoint, for the case that its node is lost; the bytes of its file follow as payload."""

    key: Key
    term: Number
    sequence: Number


class Confirmed(_Message, frozen=True, tag="confirmed"):
    """What a node has of a key's copies now: what was sent, or something newer. Term 0: nothing, it had no room."""

    key: Key
    term: Number
    sequence: Number


class Withdrawn(_Message, frozen=True, tag="withdrawn"):
    """The task is answered: its copy, up to this term, is of no use."""

    key: Key
    term: Number


class Wanted(_Message, frozen=True, tag="wanted"):
    """Whoever has a copy of this key sends it as `Mirrored`; who has none says so by `Confirmed` of term 0."""

    key: Key


class Recall(_Message, frozen=True, tag="recall"):
    """The tasks are late: those that have not been begun are to be refused, for another node to take."""

    tasks: TaskIds


Message = (
    Hello
    | Welcome
    | Submit
    | Accepted
    | Answer
    | Ack
    | Cancel
    | Heartbeat
    | Credit
    | Refusal
    | Query
    | Report
    | Bye
    | Mirrored
    | Confirmed
    | Withdrawn
    | Wanted
    | Recall
)
