# One image that runs every stage, Airflow and the endpoint, from the same lock as a laptop.
# Build: docker build --tag nightshift .     Run a stage, Airflow or the endpoint: docker run nightshift COMMAND
FROM python:3.11.7-slim-bookworm

# git: DVC and the engine stand on it; make: the environment; procps: Airflow's health checks
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make procps \
    && rm -rf /var/lib/apt/lists/*

# not root: a stage that is broken into owns nothing
RUN useradd --create-home --uid 50000 nightshift
USER nightshift
WORKDIR /home/nightshift/project

COPY --chown=nightshift requirements.txt pyproject.toml Makefile README.md ./
COPY --chown=nightshift deploy deploy
COPY --chown=nightshift include include
RUN make environment

COPY --chown=nightshift . .
ENV PATH=/home/nightshift/project/.venv/bin:$PATH \
    NIGHTSHIFT_STATE=/home/nightshift/state \
    NIGHTSHIFT_HOME=/home/nightshift/var \
    HF_HUB_OFFLINE=1 \
    DO_NOT_TRACK=1
ENTRYPOINT ["deploy/entrypoint.sh"]
CMD ["nightshift", "--help"]
