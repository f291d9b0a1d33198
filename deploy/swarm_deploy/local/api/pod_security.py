"""PodSecurity admission: whether a pod is of the level that its namespace's labels ask for. Pure.

The controls are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/ in their newest version;
an older one that a namespace pins (`enforce-version`) is shown in the answer and judged by the newest. The texts are
the real admission's, so that who reads them here has read them there. Beside `enforce` (403) there is `warn` (a Warning
header); `audit` marks a real server's audit log, and does nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["LABEL", "asked", "violations"]

Object = dict[str, Any]

#: `pod-security.kubernetes.io/enforce`, `…/enforce-version`, and so on.
LABEL: Final = "pod-security.kubernetes.io"
_LEVELS: Final = ("privileged", "baseline", "restricted")

_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_SELINUX: Final = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_VOLUMES: Final = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


class Control(NamedTuple):
    """What is wrong by one control: the reason, and which part of the pod."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def asked(labels: Mapping[str, str], mode: str) -> tuple[str, str]:
    """The level that a namespace asks for by this mode, and its version; what can't be understood asks for the most."""
    level = labels.get(f"{LABEL}/{mode}", "privileged")
    return level if level in _LEVELS else "restricted", labels.get(f"{LABEL}/{mode}-version", "latest")


def violations(pod: Object, level: str) -> list[Control]:
    """What keeps a pod from being of a level; empty: it is."""
    if level == "privileged":
        return []
    checks = [*_BASELINE, *(_OVERLAPPING if level == "baseline" else _RESTRICTED)]
    return [found for check in checks if (found := check(pod)) is not None]


# -- parts of a pod, and words


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod["spec"]
    for group in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(group) or ()


def _security(part: Object) -> Object:
    return part.get("securityContext") or {}


def _s(word: str, of: Iterable[Any]) -> str:
    return word if len(list(of)) == 1 else f"{word}s"


def _use(of: Iterable[Any]) -> str:
    return "uses" if len(list(of)) == 1 else "use"


def _quoted(names: Iterable[Any]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _named(names: list[str]) -> str:
    return f"{_s('container', names)} {_quoted(names)}"


def _bad(pod: Object, wrong: Callable[[Object], object]) -> list[str]:
    return [container["name"] for container in _containers(pod) if wrong(container)]


def _setters(pod: Object, wrong: Callable[[Object], object]) -> str:
    """Who sets something wrong: the pod, some of its containers, or both."""
    names = _bad(pod, lambda c: wrong(_security(c)))
    return " and ".join([*(["pod"] if wrong(_security(pod["spec"])) else []), *([_named(names)] if names else [])])


def _values(pod: Object, value: Callable[[Object], Iterable[str]]) -> list[str]:
    parts = [_security(pod["spec"]), *(_security(c) for c in _containers(pod))]
    return sorted({found for part in parts for found in value(part)})


# -- baseline


def _apparmor(pod: Object) -> Control | None:
    wrong = sorted(
        f'{key}="{value}"'
        for key, value in (pod["metadata"].get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )

    def unconfined(security: Object) -> list[str]:
        kind = (security.get("appArmorProfile") or {}).get("type", "")
        return [] if kind in ("", "RuntimeDefault", "Localhost") else [kind]

    who = _setters(pod, unconfined)
    if who:
        wrong.append(f"{who} must not set AppArmor profile type to {_quoted(_values(pod, unconfined))}")
    return Control(_s("forbidden AppArmor profile", wrong), "; ".join(wrong)) if wrong else None


def _host_namespaces(pod: Object) -> Control | None:
    shared = [f"{name}=true" for name in ("hostIPC", "hostNetwork", "hostPID") if pod["spec"].get(name)]
    return Control("host namespaces", ", ".join(shared)) if shared else None


def _host_ports(pod: Object) -> Control | None:
    def ports(container: Object) -> list[int]:
        return [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]

    names = _bad(pod, ports)
    found = sorted({str(port) for container in _containers(pod) for port in ports(container)})
    if not names:
        return None
    return Control("hostPort", f"{_named(names)} {_use(names)} {_s('hostPort', found)} {', '.join(found)}")


def _host_probes(pod: Object) -> Control | None:
    def hosts(container: Object) -> list[str]:
        cycle = container.get("lifecycle") or {}
        handlers = [container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [cycle.get(hook) or {} for hook in ("postStart", "preStop")]
        asked_of = [(handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")]
        return [host for host in asked_of if host]

    names = sorted(_bad(pod, hosts))
    found = sorted({host for container in _containers(pod) for host in hosts(container)})
    if not names:
        return None
    what = f"{_named(names)} {_use(names)} {_s('probe or lifecycle host', found)} {_quoted(found)}"
    return Control("probe or lifecycle host", what)


def _privileged(pod: Object) -> Control | None:
    names = _bad(pod, lambda c: _security(c).get("privileged"))
    return Control("privileged", f"{_named(names)} must not set securityContext.privileged=true") if names else None


def _proc_mount(pod: Object) -> Control | None:
    def unusual(container: Object) -> bool:
        return bool(_security(container).get("procMount", "Default") != "Default")

    names = _bad(pod, unusual)
    kinds = sorted({_security(c)["procMount"] for c in _containers(pod) if unusual(c)})
    if not names or pod["spec"].get("hostUsers") is False:
        return None
    return Control("procMount", f"{_named(names)} must not set securityContext.procMount to {_quoted(kinds)}")


def _selinux(pod: Object) -> Control | None:
    def options(security: Object) -> Object:
        return security.get("seLinuxOptions") or {}

    def types(security: Object) -> list[str]:
        kind = options(security).get("type", "")
        return [] if kind in _SELINUX else [kind]

    who = _setters(pod, lambda s: types(s) or options(s).get("user") or options(s).get("role"))
    if not who:
        return None
    found = _values(pod, types)
    data = [f"{_s('type', found)} {_quoted(found)}"] if found else []
    if _values(pod, lambda s: [options(s).get("user", "")] if options(s).get("user") else []):
        data.append("user may not be set")
    if _values(pod, lambda s: [options(s).get("role", "")] if options(s).get("role") else []):
        data.append("role may not be set")
    return Control("seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")


def _sysctls(pod: Object) -> Control | None:
    names = [s["name"] for s in _security(pod["spec"]).get("sysctls") or () if s["name"] not in _SYSCTLS]
    return Control("forbidden sysctls", ", ".join(names)) if names else None


def _host_process(pod: Object) -> Control | None:
    def windows(security: Object) -> bool:
        return bool((security.get("windowsOptions") or {}).get("hostProcess"))

    who = _setters(pod, windows)
    return (
        Control("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true") if who else None
    )


# -- baseline, where restricted says more


def _added(pod: Object, allowed: frozenset[str]) -> str:
    def wrong(container: Object) -> list[str]:
        return [c for c in (_security(container).get("capabilities") or {}).get("add") or () if c not in allowed]

    names = _bad(pod, wrong)
    found = sorted({name for container in _containers(pod) for name in wrong(container)})
    return f"{_named(names)} must not include {_quoted(found)} in securityContext.capabilities.add" if names else ""


def _capabilities_baseline(pod: Object) -> Control | None:
    text = _added(pod, _CAPABILITIES)
    return Control("non-default capabilities", text) if text else None


def _host_path(pod: Object) -> Control | None:
    names = [volume["name"] for volume in pod["spec"].get("volumes") or () if "hostPath" in volume]
    return Control("hostPath volumes", f"{_s('volume', names)} {_quoted(names)}") if names else None


def _unconfined(security: Object) -> list[str]:
    kind = (security.get("seccompProfile") or {}).get("type")
    return [] if kind in (None, "RuntimeDefault", "Localhost") else [kind]


def _seccomp_baseline(pod: Object) -> Control | None:
    who = _setters(pod, _unconfined)
    if not who:
        return None
    found = _quoted(_values(pod, _unconfined))
    return Control("seccompProfile", f"{who} must not set securityContext.seccompProfile.type to {found}")


# -- restricted


def _escalation(pod: Object) -> Control | None:
    names = _bad(pod, lambda c: _security(c).get("allowPrivilegeEscalation") is not False)
    if not names:
        return None
    text = f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Control("allowPrivilegeEscalation != false", text)


def _capabilities_restricted(pod: Object) -> Control | None:
    keep = _bad(pod, lambda c: "ALL" not in ((_security(c).get("capabilities") or {}).get("drop") or ()))
    wrong = [f'{_named(keep)} must set securityContext.capabilities.drop=["ALL"]'] if keep else []
    wrong += [text] if (text := _added(pod, frozenset({"NET_BIND_SERVICE"}))) else []
    return Control("unrestricted capabilities", "; ".join(wrong)) if wrong else None


def _restricted_volumes(pod: Object) -> Control | None:
    def kind(volume: Object) -> str:
        return next(iter(volume.keys() - {"name"}), "unknown")

    wrong = [volume for volume in pod["spec"].get("volumes") or () if kind(volume) not in _VOLUMES]
    if not wrong:
        return None
    names, kinds = [volume["name"] for volume in wrong], sorted({kind(volume) for volume in wrong})
    what = f"{_s('volume', names)} {_quoted(names)} {_use(names)} {_s('restricted volume type', kinds)}"
    return Control("restricted volume types", f"{what} {_quoted(kinds)}")


def _non_root(pod: Object) -> Control | None:
    if pod["spec"].get("hostUsers") is False:
        return None
    who = _setters(pod, lambda s: s.get("runAsNonRoot") is False)
    if who:
        return Control("runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false")
    if _security(pod["spec"]).get("runAsNonRoot"):
        return None
    names = _bad(pod, lambda c: _security(c).get("runAsNonRoot") is None)
    text = f"pod or {_named(names)} must set securityContext.runAsNonRoot=true"
    return Control("runAsNonRoot != true", text) if names else None


def _user(pod: Object) -> Control | None:
    who = _setters(pod, lambda s: s.get("runAsUser") == 0)
    if not who or pod["spec"].get("hostUsers") is False:
        return None
    return Control("runAsUser=0", f"{who} must not set runAsUser=0")


def _seccomp_restricted(pod: Object) -> Control | None:
    wrong = _seccomp_baseline(pod)
    if wrong or (_security(pod["spec"]).get("seccompProfile") or {}).get("type"):
        return wrong
    names = _bad(pod, lambda c: not (_security(c).get("seccompProfile") or {}).get("type"))
    text = f'pod or {_named(names)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Control("seccompProfile", text) if names else None


_Check = Callable[[Object], Control | None]
#: In the order in which the real admission names them.
_BASELINE: Final[tuple[_Check, ...]] = (
    _apparmor,
    _host_namespaces,
    _host_ports,
    _host_probes,
    _privileged,
    _proc_mount,
    _selinux,
    _sysctls,
    _host_process,
)
_OVERLAPPING: Final[tuple[_Check, ...]] = (_capabilities_baseline, _host_path, _seccomp_baseline)
_RESTRICTED: Final[tuple[_Check, ...]] = (
    _escalation,
    _capabilities_restricted,
    _restricted_volumes,
    _non_root,
    _user,
    _seccomp_restricted,
)
