"""Pods as processes: what they are given, how they end, and what is said about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.localnode import InProcess, make_config_map, make_pod, make_secret

pytestmark = pytest.mark.embedded


async def test_a_pod_becomes_ready_and_its_deletion_ends_its_processes(small: InProcess) -> None:
    await small.create(make_pod("p", "echo hello; exec sleep 600"))
    await small.until(lambda: small.ready("p"))
    status = small.status("p")
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("127.")
    assert status["hostIP"] != status["podIP"]
    assert small.container("p")["containerID"].startswith("embedded://")
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert small.said("p", reason), reason
    await small.delete("pods", "p")
    await small.gone("pods", "p")
    assert small.said("p", "Killing")


async def test_exit_codes_and_messages_are_told_and_the_phase_follows(small: InProcess) -> None:
    await small.create(make_pod("good", "echo why > /dev/termination-log", restartPolicy="Never"))
    await small.create(make_pod("bad", "echo lost; exit 3", restartPolicy="Never"))
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    await small.create(make_pod("killed", "echo last words; kill -9 $$$$", restartPolicy="Never", container=fallback))
    await small.until(lambda: small.status("good").get("phase") == "Succeeded")
    await small.until(lambda: small.status("bad").get("phase") == "Failed")
    await small.until(lambda: small.status("killed").get("phase") == "Failed")
    good, bad, killed = (small.container(n)["state"]["terminated"] for n in ("good", "bad", "killed"))
    assert (good["exitCode"], good["reason"], good["message"]) == (0, "Completed", "why\n")
    assert (bad["exitCode"], bad["reason"]) == (3, "Error")
    assert killed["exitCode"] == 137
    assert "last words" in killed["message"]


async def test_a_program_that_is_not_there_is_an_error_of_its_own(small: InProcess) -> None:
    await small.create(make_pod("p", restartPolicy="Never", container={"command": ["no-such-program"]}))
    ended = await small.until(lambda: small.container("p").get("state", {}).get("terminated"))
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "executable file not found in $PATH" in ended["message"]


async def test_a_container_that_ends_is_restarted_with_a_growing_pause(small: InProcess) -> None:
    await small.create(make_pod("p", "echo run; exit 3"))
    status = await small.until(lambda: small.container("p").get("restartCount", 0) >= 3 and small.container("p"))
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert small.said("p", "BackOff", "Back-off restarting failed container main")
    assert await small.log("p", previous=True) == "run\n"


async def test_on_failure_restarts_what_failed_and_not_what_succeeded(small: InProcess) -> None:
    script = "test -e mark && exit 0; touch mark; exit 1"
    await small.create(make_pod("p", script, restartPolicy="OnFailure"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert small.container("p")["restartCount"] == 1


async def test_the_environment_has_fields_keys_resources_and_references(small: InProcess) -> None:
    await small.create(make_config_map("settings", color="blue", shape="round"))
    await small.create(make_secret("keys", token="s3cret"))
    env = [
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k", "optional": True}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "BOTH", "value": "$(COLOR)-$(LABEL)-$$(COLOR)-$(ABSENT)"},
    ]
    container = {
        "env": env,
        "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}],
        "resources": {"limits": {"cpu": "1500m"}},
        "args": ["unused", "$(BOTH)"],
    }
    script = 'echo "$COLOR $TOKEN [$NONE] $NODE $IP $LABEL $CPU $BOTH $S_shape"; echo "$1"'
    await small.create(make_pod("p", script, restartPolicy="Never", container=container))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    both = "blue-p-$(COLOR)-$(ABSENT)"
    first, second = (await small.log("p")).splitlines()
    assert first == f"blue s3cret [] node-1 {small.status('p')['podIP']} p 1500 {both} round"
    assert second == both


async def test_what_is_missing_is_waited_for_and_an_event_names_it(small: InProcess) -> None:
    source = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "a"}}}]
    await small.create(make_pod("p", 'echo "$A"; exec sleep 600', container={"env": source}))
    volumes = [{"name": "v", "secret": {"secretName": "later"}}]
    await small.create(make_pod("q", volumes=volumes))
    await small.until(lambda: small.said("p", "Failed", 'configmap "later" not found'))
    await small.until(lambda: small.said("q", "FailedMount", 'secret "later" not found'))
    assert small.container("p")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    assert small.status("q")["phase"] == "Pending"
    await small.create(make_config_map("later", a="at last"))
    await small.create(make_secret("later", k="v"))
    await small.until(lambda: small.ready("p") and small.ready("q"))
    assert await small.said_in_log("p") == "at last\n"


async def test_files_from_the_api_follow_their_objects_while_the_pod_runs(small: InProcess) -> None:
    await small.create(make_config_map("settings", a="one", gone="x"))
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    sources = [{"configMap": {"name": "settings"}}, {"downwardAPI": {"items": items}}]
    volumes = [{"name": "v", "projected": {"sources": sources}}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/etc/settings"}]}
    script = "while :; do cat /etc/settings/a /etc/settings/labels; echo; ls /etc/settings; sleep 0.05; done"
    await small.create(make_pod("p", script, container=mounts, volumes=volumes))
    await small.until(lambda: small.ready("p"))
    patch = {"data": {"a": "two", "gone": None, "fresh": "y"}}
    await small.client.patch("configmaps", "settings", patch, "default")
    await small.client.patch("pods", "p", {"metadata": {"labels": {"more": "yes"}}}, "default")
    uid = small.get("pods", "p")["metadata"]["uid"]  # type: ignore[index]
    (directory,) = small.assembly.state.glob(f"nodes/node-1/pods/{uid}/volumes/v")
    await small.until(lambda: (directory / "a").read_text() == "two")
    await small.until(lambda: 'more="yes"' in (directory / "labels").read_text())
    assert sorted(p.name for p in directory.iterdir() if not p.name.startswith("..")) == ["a", "fresh", "labels"]


async def test_a_secret_s_files_are_their_owner_s_alone(small: InProcess) -> None:
    await small.create(make_secret("keys", token="s3cret"))
    volumes = [{"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o444}}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/etc/keys"}]}
    script = "stat -L -c '%a' /etc/keys /etc/keys/token"
    await small.create(make_pod("p", script, container=mounts, volumes=volumes, restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert (await small.log("p")).split() == ["700", "400"]


async def test_the_node_s_shared_memory_is_its_own_and_goes_with_the_cluster(pair: InProcess) -> None:
    volumes = [{"name": "shm", "hostPath": {"path": "/dev/shm", "type": "Directory"}}]
    mounts = {"volumeMounts": [{"name": "shm", "mountPath": "/run/shm"}]}
    for node in ("node-1", "node-2"):
        script = f"stat -c %a /run/shm; echo {node} > /run/shm/who; exec sleep 600"
        await pair.create(make_pod(node, script, container=mounts, volumes=volumes, nodeName=node))
    await pair.until(lambda: pair.ready("node-1") and pair.ready("node-2"))
    await pair.until(lambda: (pair.shm / "node-1/who").exists() and (pair.shm / "node-2/who").exists())
    assert (pair.shm / "node-1/who").read_text() == "node-1\n"
    assert (pair.shm / "node-2/who").read_text() == "node-2\n"
    assert await pair.said_in_log("node-1") == "1777\n"


async def test_directories_of_a_pod_go_with_it_and_those_of_a_restart_stay(small: InProcess) -> None:
    volumes = [{"name": "d", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "d", "mountPath": "/d"}, {"name": "m", "mountPath": "/m", "subPath": "below"}]
    script = "ls /d /m; touch /d/kept /m/kept; test $(ls /d | wc -l) = 1 && ls /d > /dev/null; sleep 0.1; exit 1"
    await small.create(make_pod("p", script, container={"volumeMounts": mounts}, volumes=volumes))
    await small.until(lambda: small.container("p").get("restartCount", 0) >= 1)
    uid = small.get("pods", "p")["metadata"]["uid"]  # type: ignore[index]
    assert (small.shm / ".memory/node-1" / uid / "m/below/kept").exists()
    await small.delete("pods", "p")
    await small.gone("pods", "p")
    node = small.assembly.state / "nodes/node-1"
    await small.until(lambda: not list((node / "logs").iterdir()) and not list((node / "pods").iterdir()))
    assert not (small.shm / ".memory/node-1" / uid).exists()


async def test_a_host_path_is_the_node_s_and_must_be_what_its_type_says(small: InProcess, tmp_path: Path) -> None:
    outside = f"/../../../../{tmp_path}/outside"
    volumes = [{"name": "v", "hostPath": {"path": outside, "type": "DirectoryOrCreate"}}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await small.create(make_pod("p", "touch /v/here; exec sleep 600", container=mounts, volumes=volumes))
    await small.until(lambda: small.ready("p"))
    assert not (tmp_path / "outside").exists(), "a simulated node's path led out of it"
    volumes = [{"name": "v", "hostPath": {"path": "/no/such", "type": "Directory"}}]
    await small.create(make_pod("q", volumes=volumes))
    await small.until(lambda: small.said("q", "FailedMount", "hostPath type check failed: /no/such is not a directory"))


async def test_init_containers_run_in_turn_and_sidecars_beside(small: InProcess) -> None:
    mounts = [{"name": "d", "mountPath": "/d"}]
    init = [
        {"name": "one", "image": "localhost/host", "command": ["sh", "-c", "echo one >> /d/order"]},
        {
            "name": "side",
            "image": "localhost/host",
            "restartPolicy": "Always",
            "command": ["sh", "-c", "echo side >> /d/order; touch /d/up; exec sleep 600"],
            "startupProbe": {"exec": {"command": ["test", "-e", "/d/up"]}, "periodSeconds": 1},
        },
        {"name": "two", "image": "localhost/host", "command": ["sh", "-c", "echo two >> /d/order"]},
    ]
    init = [{**c, "volumeMounts": mounts} for c in init]
    more = {"initContainers": init, "volumes": [{"name": "d", "emptyDir": {}}], "restartPolicy": "Never"}
    await small.create(make_pod("p", "cat /d/order", container={"volumeMounts": mounts}, **more))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert (await small.log("p")).split() == ["one", "side", "two"]
    assert "terminated" in small.status("p")["initContainerStatuses"][1]["state"]


async def test_an_init_container_that_fails_for_good_fails_the_pod(small: InProcess) -> None:
    init = [{"name": "i", "image": "localhost/host", "command": ["false"]}]
    await small.create(make_pod("p", "echo never", initContainers=init, restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Failed")
    assert "waiting" in small.container("p")["state"]
    conditions = {c["type"]: c for c in small.status("p")["conditions"]}
    assert conditions["Initialized"]["reason"] == "ContainersNotInitialized"


async def test_several_containers_share_address_and_volumes_and_are_ready_together(small: InProcess) -> None:
    mounts = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    second = {"name": "second", "image": "localhost/host", "command": ["sh", "-c", "exec sleep 600"], **mounts}
    second["readinessProbe"] = {"exec": {"command": ["test", "-e", "/d/go"]}, "periodSeconds": 1}
    volumes = [{"name": "d", "emptyDir": {}}]
    await small.create(make_pod("p", container=mounts, others=[second], volumes=volumes))
    await small.until(lambda: small.container("p", 0).get("ready"))
    conditions = {c["type"]: c for c in small.status("p")["conditions"]}
    assert conditions["Ready"]["message"] == "containers with unready status: [second]"
    uid = small.get("pods", "p")["metadata"]["uid"]  # type: ignore[index]
    (small.assembly.state / "nodes/node-1/pods" / uid / "volumes/d/go").touch()
    await small.until(lambda: small.ready("p"))


async def test_a_pod_with_credentials_reaches_the_api_by_a_kubeconfig_of_its_own(small: InProcess) -> None:
    script = 'cat "$KUBECONFIG"; cat $(dirname $(grep -o \'/[^"]*token\' "$KUBECONFIG"))/namespace'
    pod = make_pod("p", script, restartPolicy="Never", automountServiceAccountToken=True)
    await small.create(pod)
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    said = await small.log("p")
    assert "https://127.0.0.1:1" in said
    assert said.rstrip().endswith("default")


async def test_a_deadline_ends_the_pod(small: InProcess) -> None:
    await small.create(make_pod("p", activeDeadlineSeconds=1))
    await small.until(lambda: small.status("p").get("reason") == "DeadlineExceeded")
    assert small.status("p")["phase"] == "Failed"


async def test_cpus_of_guaranteed_pods_are_theirs_and_others_are_moved_off(small: InProcess) -> None:
    real = sorted(os.sched_getaffinity(0))
    script = 'echo "$SWARM_CPUS $SWARM_CPUS_EXCLUSIVE"; exec sleep 600'
    await small.create(make_pod("shares", script))
    await small.until(lambda: small.ready("shares"))
    limits = {"resources": {"limits": {"cpu": "3", "memory": "64Mi"}}}
    await small.create(make_pod("owns", script, container=limits))
    await small.until(lambda: small.ready("owns"))
    kubelet = small.assembly.kubelets[0]
    assert kubelet.services.cpus.shared == (real[0],)
    (shares,) = [p for p in kubelet.pods if p.object["metadata"]["name"] == "shares"]
    task = shares.main[0].task
    assert task is not None
    await small.until(lambda: os.sched_getaffinity(task.process.pid) == {real[0]})
    cpus, exclusive = (await small.said_in_log("owns")).split()
    assert cpus
    assert exclusive == ("simulated" if len(real) >= 4 else "false")
    assert (await small.said_in_log("shares")).split() == []
    await small.delete("pods", "owns")
    await small.until(lambda: len(kubelet.services.cpus.shared) == min(4, len(real)))
