"""From `helm install` to `helm uninstall` on a cluster, with checked work all the time: nothing is lost or left behind.

One story, told in order: each test begins where the one before has ended. What a cluster can't do is skipped with the
reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from support.clusters import ROOT
from support.doorway import Doorway
from support.helm import CHART
from support.installation import CRD, Site
from support.kubectl import Kubectl, manifest
from support.load import Load
from support.steady import Work
from support.waiting import eventually
from swarm_agents.client.session import Session
from swarm_agents.errors import Unreachable, WrongKey

pytestmark = pytest.mark.timeout(900)

NAME = "risk"
SELECTOR = f"agentswarm.dev/swarm={NAME}"
#: What a swarm may take to be ready where kernels have to be compiled first (seconds).
START = 300.0
Object = dict[str, Any]


def swarm(site: Site, example: str, **compute: Any) -> Object:
    """A shipped example, with this run's images, and small enough for a node of two cores."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "examples" / example).read_text())
    (made,) = (each for each in documents if each["kind"] == "Swarm")
    made["metadata"].pop("namespace", None)
    spec = made["spec"]
    spec |= {"image": site.images.agent, "imagePullPolicy": site.images.pull_policy}
    roomy = site.cpus >= 4
    spec["compute"] |= {"replicas": 2, "cpus": "500m" if roomy else "150m", "memory": "512Mi"} | compute
    spec["transport"]["sharedMemory"]["size"] = "64Mi"
    spec["resource"] = {"cpus": "100m"}
    return dict(made)


def pods(kubectl: Kubectl, role: str = "", name: str = NAME) -> list[Object]:
    """The swarm's pods that are not being deleted, by name; of the role `worker` are compute agents and standbys."""
    roles = {"": "", "worker": ",agentswarm.dev/role in (compute,standby)"}.get(role, f",agentswarm.dev/role={role}")
    selector = f"agentswarm.dev/swarm={name}{roles}"
    found = kubectl.get("pods", "-l", selector)["items"]
    living = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return sorted(living, key=lambda pod: str(pod["metadata"]["name"]))


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def wait_ready(kubectl: Kubectl, name: str = NAME, seconds: float = START) -> None:
    try:
        kubectl("wait", "--for=condition=Ready", f"swarm/{name}", f"--timeout={seconds:.0f}s", timeout=seconds + 20)
    except AssertionError:
        print(kubectl.attempt("describe", "swarm", name).out)
        print(kubectl.attempt("describe", "pods").out[-6000:])
        raise


def patch(kubectl: Kubectl, spec: Object, name: str = NAME) -> int:
    """Merges into the spec; returns the generation."""
    kubectl("patch", "swarm", name, "--type=merge", "-p", json.dumps({"spec": spec}))
    return int(kubectl.get("swarm", name)["metadata"]["generation"])


def settled(kubectl: Kubectl, count: int, generation: int = 0, name: str = NAME) -> bool:
    """The operator has seen the generation, and that many compute agents are ready and no more are there."""
    status = kubectl.get("swarm", name).get("status", {})
    agents = pods(kubectl, "worker", name)
    return status.get("observedGeneration", 0) >= generation and len(agents) == count and all(map(is_ready, agents))


def ended(kubectl: Kubectl, pod: str) -> str:
    """Waits for a pod's end, and says which one it was."""

    def phase() -> str:
        found = str(kubectl.get("pod", pod).get("status", {}).get("phase", ""))
        return found if found in ("Succeeded", "Failed") else ""

    return str(eventually(phase, f"the end of the pod {pod}"))


def python(kubectl: Kubectl, pod: str, code: str) -> str:
    """What a piece of Python prints in a pod's first container."""
    return kubectl("exec", pod, "--", "python3", "-c", code).out


def task(number: int) -> tuple[str, tuple[Any, ...], Any]:
    """A task whose answer is known: the tree hash of one leaf, by the definition (RFC 6962, 2.1)."""
    import numpy as np

    data = np.random.default_rng(number).integers(0, 256, 2048, dtype=np.uint8)
    return "hash.sha256_tree", (data,), hashlib.sha256(b"\x00" + data.tobytes()).digest()


@pytest.fixture
def kubectl(site: Site) -> Kubectl:
    return site.kubectl.within(site.work)


def test_it_is_installed_by_helm_into_a_restricted_namespace(site: Site) -> None:
    site.install()
    if not site.runs_deployments:
        return
    operators = site.kubectl.within(site.system).get("pods", "-l", "app.kubernetes.io/component=operator")["items"]
    assert len([pod for pod in operators if is_ready(pod)]) == 2


def test_the_charts_own_test_passes(site: Site) -> None:
    if not site.runs_deployments:
        pytest.skip("this cluster runs no Deployments, so there is no release to test")
    site.helm("test", site.release, "--logs")


def test_the_example_swarm_becomes_ready(site: Site, kubectl: Kubectl) -> None:
    made = swarm(site, "risk.yaml")
    kubectl("apply", "-f", "-", stdin=manifest(made))
    wait_ready(kubectl)
    assert len([pod for pod in pods(kubectl, "worker") if is_ready(pod)]) == 3  # a standby is one of them
    listed = kubectl("get", "swarms").out
    assert NAME in listed
    print(listed)


def test_work_from_outside_the_cluster_is_answered_rightly(site: Site, kubectl: Kubectl, work: Work) -> None:
    work.doorway = Doorway(kubectl, NAME)
    doorway = work.doorway

    def begin() -> Load | None:
        try:
            # on one node the only hub is replaced in a roll, and its successor may have a tenth of a core to start with
            return Load(doorway.find, board=False, window=8, task=task, retry_window=180)
        except Exception as error:
            print(f"not yet: {error}")
            return None

    work.load = eventually(begin, "a connection", 60)
    work.answers(200, "at rest")


def test_work_from_a_pod_is_answered_rightly(site: Site, kubectl: Kubectl, work: Work, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("swarm")
    file = tmp_path / "connection.json"
    target = f"{site.work}/{NAME}"
    env = os.environ | {"KUBECONFIG": str(site.kubeconfig)}
    done = subprocess.run(
        [str(program), "connection", target, "-o", str(file)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kubectl("create", "secret", "generic", "connection", f"--from-file=connection.json={file}")
    code = (
        "import hashlib, numpy as np\n"
        "from swarm_agents.client import Swarm\n"
        "with Swarm.connect() as swarm:\n"
        "    blocks = [np.random.default_rng(i).integers(0, 256, 2048, dtype=np.uint8) for i in range(100)]\n"
        "    roots = list(swarm.map('hash.sha256_tree', blocks))\n"
        "    assert roots == [hashlib.sha256(b'\\0' + b.tobytes()).digest() for b in blocks]\n"
        "print('all right')\n"
    )
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "client",
        "image": site.images.agent,
        "imagePullPolicy": site.images.pull_policy,
        "command": ["python3", "-c", code],
        "env": [{"name": "SWARM_ENDPOINT", "value": "/etc/swarm/connection.json"}],
        "volumeMounts": [{"name": "connection", "mountPath": "/etc/swarm"}],
        "securityContext": restricted,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # the swarm's NetworkPolicy lets in who says that he is its client
        "metadata": {"name": "client", "labels": {"agentswarm.dev/client": NAME}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "connection", "secret": {"secretName": "connection", "defaultMode": 0o440}}],
        },
    }
    kubectl("create", "-f", "-", stdin=manifest(pod))
    assert ended(kubectl, "client") == "Succeeded", kubectl("logs", "client").out
    said = kubectl("logs", "client").out
    assert "all right" in said
    kubectl("delete", "pod", "client")
    kubectl("delete", "secret", "connection")
    work.answers(20, "beside the pod's")


def test_a_killed_agent_process_costs_no_task(kubectl: Kubectl, work: Work) -> None:
    name = pods(kubectl, "compute")[0]["metadata"]["name"]
    code = (
        "import os, signal\n"
        "def fields(pid): return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()\n"
        "pids = [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]\n"
        "def parent(pid):\n"
        "    try: return int(fields(pid)[1])\n"
        "    except OSError: return 0\n"
        "children = [p for p in pids if parent(p) == 1]\n"
        "for child in children: os.kill(child, signal.SIGKILL)\n"
        "print(len(children))\n"
    )
    killed = int(python(kubectl, name, code))
    assert killed >= 1, "the agent's process is a child of the container's first one"
    work.answers(100, "after an agent's process was killed")
    eventually(lambda: settled(kubectl, 3), "all to be ready again")
    agent = next(pod for pod in pods(kubectl, "compute") if pod["metadata"]["name"] == name)
    assert sum(each["restartCount"] for each in agent["status"]["containerStatuses"]) == 0, "its supervisor replaced it"


def test_deleted_agents_cost_no_task_and_come_back(kubectl: Kubectl, work: Work) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    victims = [pods(kubectl, role)[0]["metadata"]["name"] for role in ("compute", "resource")]
    kubectl("delete", "pod", *victims, "--grace-period=0", "--force", "--wait=false")
    work.answers(100, "after a compute and a resource agent were deleted", 180)
    wait_ready(kubectl)
    eventually(lambda: settled(kubectl, 3), "all to be ready again")
    assert len({pod["metadata"]["uid"] for pod in pods(kubectl)} - before) == 2


def test_the_work_goes_on_without_the_operator_which_comes_back(site: Site, kubectl: Kubectl, work: Work) -> None:
    site.kill_operators()
    work.answers(50, "while no operator was there")
    victim = pods(kubectl, "compute")[-1]["metadata"]
    kubectl("delete", "pod", victim["name"], "--wait=false")
    eventually(
        lambda: settled(kubectl, 3) and victim["uid"] not in {pod["metadata"]["uid"] for pod in pods(kubectl)},
        "the new operator to replace an agent",
    )


def test_a_live_field_reaches_the_agents_without_a_restart(kubectl: Kubectl, work: Work) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    seen = kubectl.get("swarm", NAME)["status"].get("settings")
    patch(kubectl, {"failover": {"suspectAfter": "250ms"}})

    def observed() -> bool:
        status = kubectl.get("swarm", NAME)["status"]
        return status.get("settings") not in (None, seen) and status.get("observedSettings") == status["settings"]

    eventually(observed, "every agent to acknowledge the new settings", 60, pause=0.2)
    assert {pod["metadata"]["uid"] for pod in pods(kubectl)} == before
    work.answers(20, "with the new settings")


def test_keys_are_renewed_under_load_and_the_old_ones_refused(kubectl: Kubectl, work: Work) -> None:
    assert work.doorway is not None, "the work was never begun: see the failure before"
    before = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    old = work.doorway.find()
    renewals = kubectl.get("swarm", NAME)["status"].get("keys", {}).get("renewals", 0)
    patch(kubectl, {"security": {"keyOverlap": "0s"}})
    kubectl("annotate", "swarm", NAME, "agentswarm.dev/rotate-keys=once")

    def renewed() -> bool:
        status = kubectl.get("swarm", NAME)["status"]
        holds = [each for each in status["conditions"] if each["type"] == "KeysRenewing" and each["status"] == "False"]
        return bool(status.get("keys", {}).get("renewals", 0) > renewals and holds)

    eventually(renewed, "the keys to be renewed", 240, pause=0.5)
    now = work.doorway.find()
    assert {now.public_key, now.server_key}.isdisjoint({old.public_key, old.server_key})
    hubs = tuple(msgspec.structs.replace(hub, public_key=now.server_key) for hub in now.hubs)
    with pytest.raises((WrongKey, Unreachable)):
        Session(msgspec.structs.replace(old, hubs=hubs, server_key=now.server_key), timeout=5, retry_window=0).close()
    Session(now, timeout=30, retry_window=0).close()  # the hubs were there, and refused the old key alone
    work.answers(100, "with the new keys")
    assert {pod["metadata"]["uid"] for pod in pods(kubectl)} == before, "no pod was replaced"


def rolled(kubectl: Kubectl, work: Work, spec: Object) -> None:
    """A rolling change: all pods are replaced, the work goes on meanwhile."""
    before = {pod["metadata"]["uid"] for pod in pods(kubectl, "worker")}
    generation = patch(kubectl, spec)
    eventually(
        lambda: (
            settled(kubectl, 3, generation)
            and not before & {pod["metadata"]["uid"] for pod in pods(kubectl, "compute")}
        ),
        "every agent to be replaced",
        600,
    )
    wait_ready(kubectl)
    work.answers(50, "after the roll")


def test_a_rolling_field_is_rolled_under_load(kubectl: Kubectl, work: Work) -> None:
    rolled(kubectl, work, {"compute": {"env": [{"name": "ROLLED", "value": "once"}]}})


def test_the_image_is_rolled_under_load(site: Site, kubectl: Kubectl, work: Work) -> None:
    if not site.images.next_agent:
        pytest.skip("no NEXT_AGENT_IMAGE to roll to was given")
    rolled(kubectl, work, {"image": site.images.next_agent})
    images = {pod["spec"]["containers"][0]["image"] for pod in pods(kubectl)}
    assert images == {site.images.next_agent}


def test_it_scales_out_and_in_under_load(kubectl: Kubectl, work: Work) -> None:
    kubectl("scale", "swarm", NAME, "--replicas=3")
    eventually(lambda: settled(kubectl, 4), "a third agent beside the standby", START)
    work.answers(50, "with three agents")
    kubectl("scale", "swarm", NAME, "--replicas=1")
    eventually(lambda: settled(kubectl, 2), "one agent and the standby", START)
    work.answers(50, "with one agent")


def test_the_release_is_upgraded_and_rolled_back(site: Site, kubectl: Kubectl, work: Work) -> None:
    if not site.runs_deployments:
        pytest.skip("this cluster runs no Deployments, so there is no release to upgrade")
    before = {pod["metadata"]["uid"] for pod in pods(kubectl)}
    words = ("--wait", "--timeout", "240s")
    site.helm("upgrade", site.release, str(CHART), *words, values=site.values(logLevel="debug"))
    (deployment,) = site.kubectl.within(site.system).get("deployments")["items"]
    assert "--log-level=debug" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    site.helm("rollback", site.release, *words)
    (deployment,) = site.kubectl.within(site.system).get("deployments")["items"]
    assert "--log-level=info" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    work.answers(50, "after upgrade and rollback")
    assert {pod["metadata"]["uid"] for pod in pods(kubectl)} == before, "an upgrade of the operator touches no agent"


def test_nothing_of_all_that_work_was_lost_or_answered_twice(work: Work) -> None:
    assert work.load is not None
    load = work.load
    load.stop(patience=120)
    print(f"{load.sent} tasks sent, {len(load.answers)} answered rightly, {load.lost()} lost, {load.doubled()} doubled")
    assert not load.errors, load.errors[:3]
    assert (load.lost(), load.doubled()) == (0, 0)
    assert load.sent > 500


def test_a_swarm_runs_in_a_restricted_namespace(site: Site, kubectl: Kubectl) -> None:
    kubectl("patch", "swarm", NAME, "--type=merge", "-p", '{"spec": {"suspend": true}}')  # room for it
    eventually(lambda: not kubectl.get("pods", "-l", SELECTOR)["items"], "the first swarm to be suspended")
    tight = site.kubectl.within(site.tight)
    tight("apply", "-f", "-", stdin=manifest(swarm(site, "restricted.yaml", replicas=1)))
    wait_ready(tight)
    doorway = Doorway(tight, NAME)
    try:
        load = Load(doorway.find, board=False, window=4, task=task)
        eventually(lambda: len(load.answers) >= 50, "answers of pods without the node's memory")
        load.stop()
        assert not load.errors, load.errors[:3]
        assert load.lost() == 0
    finally:
        doorway.close()
    tight("delete", "swarm", NAME)
    eventually(lambda: not tight.get("pods", "-l", SELECTOR)["items"], "its pods to go")


def test_agents_have_their_cores_alone_where_the_node_gives_them(site: Site, kubectl: Kubectl) -> None:
    """While the first swarm is suspended: on a node of two cores, one of them reserved, there is one to be had."""
    static = [node["metadata"]["name"] for node in site.nodes if site.cpu_manager(node["metadata"]["name"]) == "static"]
    if not static:
        pytest.skip("no node's kubelet has the static CPU Manager policy")
    static.sort(key=site.free_cpus, reverse=True)
    node, free = static[0], site.free_cpus(static[0])
    if free < 1.0:
        pytest.skip(f"no node has a whole core left: {node} has {free:.2f}")
    made = swarm(site, "risk.yaml", replicas=1, standby=0, cpus="1")
    made["metadata"]["name"] = "alone"
    made["spec"]["scheduling"] = {"nodeSelector": {"kubernetes.io/hostname": node}, "cpuPinning": "Required"}
    if free < 1.1:  # not even for a resource agent is there anything left
        made["spec"]["resource"]["nodeSelector"] = {"agentswarm.dev/none": "here"}
    kubectl("apply", "-f", "-", stdin=manifest(made))
    try:
        eventually(lambda: is_pinned(kubectl, "alone"), "the condition Pinned", START)
        (agent,) = pods(kubectl, "compute", "alone")
        mine = allowed_cores(kubectl, agent)
        assert len(mine) == 1, f"it was given the cores {mine}"

        def shared_with() -> dict[str, set[str]]:
            """Other pods of the node that may run there."""
            found = {}
            for within in (site.kubectl.within(site.system), kubectl):
                running = f"spec.nodeName={node},status.phase=Running"
                for other in within.get("pods", "--field-selector", running)["items"]:
                    if other["metadata"]["uid"] != agent["metadata"]["uid"]:
                        found[other["metadata"]["name"]] = mine & allowed_cores(within, other)
            return {name: theirs for name, theirs in found.items() if theirs}

        # who ran before is moved off by the kubelet's next round (cpuManagerReconcilePeriod, 10 s)
        eventually(lambda: not shared_with(), f"core {mine} to be nobody else's", 45)
    finally:
        kubectl("delete", "swarm", "alone", "--wait=false")
    eventually(lambda: not kubectl.get("pods", "-l", "agentswarm.dev/swarm=alone")["items"], "its pods to go")


def is_pinned(kubectl: Kubectl, name: str) -> bool:
    """Whether the agents are ready, and the Swarm says that each has its cores alone."""
    conditions = kubectl.get("swarm", name).get("status", {}).get("conditions", ())
    pinned = any(each["type"] == "Pinned" and each["status"] == "True" for each in conditions)
    return pinned and settled(kubectl, 1, name=name)


def allowed_cores(kubectl: Kubectl, pod: Object) -> set[str]:
    """The cores that every process of a pod's first container may run on, as the kernel says there."""
    code = (
        "import os\n"
        "pids = [int(p) for p in os.listdir('/proc') if p.isdigit()]\n"
        "print(*set().union(*(os.sched_getaffinity(p) for p in pids)))"
    )
    return set(python(kubectl, pod["metadata"]["name"], code).split())


def test_a_suspended_swarm_resumes(kubectl: Kubectl) -> None:
    assert kubectl.get("swarm", NAME)["spec"]["suspend"]
    patch(kubectl, {"suspend": False})
    wait_ready(kubectl)
    assert settled(kubectl, 2)


def test_uninstalled_it_leaves_nothing(site: Site, kubectl: Kubectl) -> None:
    uid = kubectl.get("swarm", NAME)["metadata"]["uid"]
    kubectl("delete", "swarm", NAME)
    kinds = "pods,configmaps,secrets,services,controllerrevisions,poddisruptionbudgets,serviceaccounts,networkpolicies"

    def owned() -> list[str]:
        return [
            f"{each['kind']}/{each['metadata']['name']}"
            for each in kubectl.get(kinds)["items"]
            if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", ()))
        ]

    eventually(lambda: not owned(), "what the Swarm owned to go", 180)
    left = python_on_node(site, kubectl, f"import os; print([n for n in os.listdir('/node') if '{uid}' in n])")
    assert left in ("[]", ""), f"the node's shared memory still holds {left}"
    site.uninstall()
    everywhere = site.kubectl.get("clusterroles,clusterrolebindings")["items"]
    mine = [each["metadata"]["name"] for each in everywhere if site.run in each["metadata"]["name"]]
    assert not mine, f"of the release are left: {mine}"

    def kept() -> list[str]:
        found = site.kubectl.within(site.system).get("deployments,services,pods")["items"]
        return [f"{each['kind']}/{each['metadata']['name']}" for each in found]

    eventually(lambda: not kept(), "the operator's pods to end", 60)  # helm waits for the Deployment alone
    assert (site.kubectl.attempt("get", CRD).code == 0) == site.had_crd


def python_on_node(site: Site, kubectl: Kubectl, code: str) -> str:
    """What a piece of Python prints that sees the node's /dev/shm at /node; empty where that isn't allowed."""
    if not site.runs_deployments:
        return ""  # the embedded cluster's own tests look at its memory
    mount = {"name": "node", "mountPath": "/node", "readOnly": True}
    container = {
        "name": "look",
        "image": site.images.agent,
        "imagePullPolicy": site.images.pull_policy,
        "command": ["python3", "-c", code],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [mount],
    }
    volume = {"name": "node", "hostPath": {"path": "/dev/shm", "type": "Directory"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    kubectl(
        "create",
        "-f",
        "-",
        stdin=manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look"}, "spec": spec}),
    )
    try:
        ended(kubectl, "look")
        return kubectl("logs", "look").out.strip()
    finally:
        kubectl("delete", "pod", "look", "--wait=false")
