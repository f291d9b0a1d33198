"""The wire between nodes, and from clients outside a node: ZeroMQ over TCP, encrypted and authenticated by CURVE.

`schema` says what is said, `frames` turns it into bytes, `credit` counts who may say how much, `keys` and `zap` decide
who may speak, `sockets` opens the sockets with the options that belong together, `reactor` serves them, and `monitor`
tells what became of a connection. A hub has one ROUTER; clients, and other hubs, connect to it by a DEALER each.

Messages (P: a client, or another hub as the sender of tasks; H: the hub that takes them):

    message     from  fields beyond the names                          what follows
    Hello       P     swarm, session, room for answers in bytes        Welcome, or Refusal; answers not acknowledged
    Welcome     H     credit in tasks and bytes, limit of a message    (P may submit)
    Submit      P     task, kernel, lane, budget, hops; + arguments    Answer, sooner or later; or Refusal of the task
    Accepted    H     tasks                                            (only of what is not answered within 50 ms)
    Answer      H     task, agent, node, attempts, times; + value      Ack
    Ack         P     tasks                                            (H forgets the answers, remembers the ids)
    Cancel      P     task                                             (no answer is due)
    Credit      both  H: tasks and bytes; P: bytes of answers          (holds from now on)
    Heartbeat   P     time of sending; of a hub also its load          the same with `echo` set
    Refusal     H     code, text, task or none, when to try again      P submits again then, or fails the task
    Query       P     number                                           Report + JSON
    Bye         both                                                   (P: its tasks are given up; H: go elsewhere)

A task between P and H, as H sees it:

    unknown --Submit--> on the board --answered--> kept --sent, as room allows--> on the way --Ack--> remembered
       ^                    |                                                                            |
       +---Refusal (full)---+                                       after `REMEMBERED` seconds: unknown -+

Why nothing is lost: P keeps a task until it has its answer, and submits it again, under the same id, by another path,
at another hub, or at the next life of this one; H keeps an answer until it was acknowledged. Why nothing is doubled: an
id that is on the board, kept or remembered is not put on the board again, whichever connection repeats it; P takes the
first answer to an id and drops others; and a hub that forwarded a task commits its answer on the home board by a claim,
which the board accepts once. A task may be *begun* more than once: after a hub's death nobody knows how far it came.

Credit bounds every queue in between: see `credit`. An unknown version is refused before anything else of a message is
looked at, by a text that names both versions, and the refusal's own first bytes say which version this side speaks.
"""
