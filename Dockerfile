# The images of Agent Swarm. Targets: operator, agent, agent-gpu.
#
#   make image                                   # with docker, podman or buildah, whichever is there
#   make image BASE=localhost/python-base:1      # on another base: a Debian or Ubuntu with python3 (3.11 or newer) and venv
#   docker build --target agent --build-arg BASE=python:3.13-slim .
#
# Wheels are made once, installed without an installer left behind, and the result is one layer on nothing: what the
# base brings to build with (pip, compilers, caches) is gone and does not lie in a layer below.
ARG BASE=python:3.13-slim-bookworm

# ---- wheels of the project and of all that it needs, made once
FROM ${BASE} AS wheels
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_CERT=
RUN python3 -m venv /build
WORKDIR /src
# what it needs first: that stays cached while only the sources change
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; extras = project["optional-dependencies"]; \
print(*project["dependencies"], *extras["operator"], *extras["agents"], sep="\n")' >requirements.txt \
 && /build/bin/pip wheel --quiet --disable-pip-version-check --wheel-dir /wheels --requirement requirements.txt
COPY README.md LICENSE ./
COPY operator operator
COPY agents agents
COPY deploy deploy
RUN /build/bin/pip wheel --quiet --disable-pip-version-check --wheel-dir /wheels --no-deps .

# With the CUDA libraries that CuPy calls: of a GPU node an image is given the driver and no more.
FROM wheels AS wheels-gpu
RUN python3 -c 'import tomllib; \
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["gpu"], sep="\n")' >requirements.txt \
 && /build/bin/pip wheel --quiet --disable-pip-version-check --wheel-dir /wheels --find-links /wheels --requirement requirements.txt \
      'cupy-cuda12x[ctk]'

# ---- an environment for each target; pip stays outside of it
FROM wheels AS operator-environment
RUN python3 -m venv --without-pip /opt/agentswarm \
 && /build/bin/pip --python /opt/agentswarm/bin/python install --quiet --no-index --find-links /wheels --no-compile \
      'agentswarm[operator]' \
 && rm -rf /opt/agentswarm/lib/python3*/site-packages/swarm_deploy /opt/agentswarm/bin/swarm /opt/agentswarm/bin/swarm-agent \
      /opt/agentswarm/bin/kubectl-swarm /opt/agentswarm/bin/kopf \
 && find /opt/agentswarm -type d \( -name tests -o -name test \) -path '*/site-packages/*' -prune -exec rm -rf {} + \
 # of the Kubernetes client no generated API is used, and hardly a model
 && rm -rf /opt/agentswarm/lib/python3*/site-packages/kubernetes/client/api /opt/agentswarm/lib/python3*/site-packages/kubernetes/aio/client/api \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/kubernetes/(aio/)?client/models/' /opt/agentswarm/lib

FROM wheels AS agent-environment
RUN python3 -m venv --without-pip /opt/agentswarm \
 && /build/bin/pip --python /opt/agentswarm/bin/python install --quiet --no-index --find-links /wheels --no-compile \
      'agentswarm[agents]' \
 && rm -rf /opt/agentswarm/lib/python3*/site-packages/swarm_deploy /opt/agentswarm/lib/python3*/site-packages/swarm_operator \
      /opt/agentswarm/bin/swarm /opt/agentswarm/bin/swarm-operator /opt/agentswarm/bin/kubectl-swarm \
 && find /opt/agentswarm -type d \( -name tests -o -name test \) -path '*/site-packages/*' -not -path '*/numba/*' -prune \
      -exec rm -rf {} + \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/agentswarm/lib
# Compiled for each level of this architecture that the machine which builds can run. Numba knows a source by its time
# stamp, and a layer keeps whole seconds: so they all have the same one.
RUN find /opt/agentswarm/lib -exec touch --no-dereference --date=@1767225600 {} + \
 && /opt/agentswarm/bin/python -m swarm_agents.runtime.jitcache /opt/agentswarm/jit >/dev/null

FROM wheels-gpu AS agent-gpu-environment
COPY --from=agent-environment /opt/agentswarm /opt/agentswarm
RUN /build/bin/pip --python /opt/agentswarm/bin/python install --quiet --no-index --find-links /wheels 'agentswarm[agents,gpu]' \
      'cupy-cuda12x[ctk]'

# ---- the base, less what only building needs
FROM ${BASE} AS lean
RUN python3 -c 'import shutil, sysconfig, pathlib; \
library = pathlib.Path(sysconfig.get_path("stdlib")); \
gone = [library / name for name in ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo", "test")]; \
gone += [path for root in (pathlib.Path("/usr"), pathlib.Path("/opt")) \
         for path in root.glob("**/*-packages/*") if path.name.partition("-")[0] in ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")]; \
gone += [path for path in pathlib.Path("/usr/share").glob("python-wheels")]; \
gone += [path for folder in ("/usr/local/bin", "/usr/bin") for path in pathlib.Path(folder).glob("pip*")]; \
[shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True) for path in gone]' \
 && rm -rf /usr/share/doc /usr/share/man /usr/share/locale /usr/share/info /var/cache/* /var/lib/apt/lists/* /var/log/* /tmp/* /root/.cache \
      /usr/share/perl /usr/share/perl5 /usr/lib/*/perl /usr/lib/*/perl5 /usr/lib/*/perl-base /usr/lib/*/libperl.so* /usr/bin/perl* \
      /usr/lib/*/gconv /usr/bin/apt* /usr/lib/apt \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && { grep -q '^agentswarm:' /etc/passwd || echo 'agentswarm:x:65532:65532:Agent Swarm:/nonexistent:/usr/sbin/nologin' >>/etc/passwd; } \
 && { grep -q '^agentswarm:' /etc/group || echo 'agentswarm:x:65532:' >>/etc/group; }

FROM scratch AS runtime
COPY --from=lean / /
ENV PATH=/opt/agentswarm/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="Agent Swarm" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
WORKDIR /

# ---- the images
FROM runtime AS operator
LABEL org.opencontainers.image.title="agentswarm-operator" \
      org.opencontainers.image.description="Turns Swarm resources into pods of compute and resource agents."
COPY --from=operator-environment /opt/agentswarm /opt/agentswarm
ENTRYPOINT ["swarm-operator"]

FROM runtime AS agent-gpu
LABEL org.opencontainers.image.title="agentswarm-agent-gpu" \
      org.opencontainers.image.description="A compute or resource agent of a Swarm, with CuPy."
ENV SWARM_CACHE_SEED=/opt/agentswarm/jit
COPY --from=agent-gpu-environment /opt/agentswarm /opt/agentswarm
ENTRYPOINT ["swarm-agent"]

FROM runtime AS agent
LABEL org.opencontainers.image.title="agentswarm-agent" \
      org.opencontainers.image.description="A compute or resource agent of a Swarm."
ENV SWARM_CACHE_SEED=/opt/agentswarm/jit
COPY --from=agent-environment /opt/agentswarm /opt/agentswarm
ENTRYPOINT ["swarm-agent"]
