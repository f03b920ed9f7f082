"""What an operator may ask and order: the handlers of the second listener, which is on loopback alone.

Every route but `/healthz` needs a key with its scope; there is no master key. The first such key is made by the command
line, by who may write NIGHTSHIFT_HOME. What is ordered stands in the audit before it is done, with the key that did it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pydantic import Field
from starlette.responses import JSONResponse, Response

from nightshift import audit, params, registry, rollouts
from nightshift.deployment import Environments
from nightshift.errors import AccessDenied, DiskFull, ParamsError, ReleaseInvalid, RepositoryError, StorageError
from nightshift.registry import Release
from nightshift.serve.body import Body
from nightshift.serve.call import Call
from nightshift.serve.follow import Follower
from nightshift.serve.keys import ASKING, Key, Keys
from nightshift.serve.meters import Meters
from nightshift.serve.refused import Refused
from nightshift.serve.routes import Entry
from nightshift.serve.served import Served
from nightshift.serving import KeyLimits

LAST_EVENTS = 1000
REPEATED_S = 86_400  # how long an Idempotency-Key is remembered
REPEATED_MOST = 1_000  # of them, the newest


class NewKey(Body):
    """POST /admin/v1/keys."""

    owner: str = Field(min_length=1, max_length=200)
    scopes: list[str]
    groups: list[str] = Field(default=["public"])
    days: int = 90
    limits: KeyLimits | None = None


class Rotation(Body):
    """POST /admin/v1/keys/{id}/rotate."""

    overlap_hours: float = 24
    days: int = 90


class Proposal(Body):
    """POST /admin/v1/deployments."""

    version: str = Field(pattern=r"^v\d+\.\d+\.\d+$")
    reason: str = Field(min_length=1, max_length=1000)


class Rollback(Body):
    """POST /admin/v1/deployments/rollback."""

    reason: str = Field(min_length=1, max_length=1000)


class Revocation(Body):
    """POST /admin/v1/keys/{id}/revoke."""

    reason: str = Field(default="", max_length=1000)


KEYS = ("keys:admin",)
ADMIN = [
    Entry("GET", "/admin/v1/keys", "keys", KEYS, "Every key"),
    Entry("POST", "/admin/v1/keys", "create_key", KEYS, "Make a key", NewKey),
    Entry("POST", "/admin/v1/keys/{id}/rotate", "rotate_key", KEYS, "Give a key another secret", Rotation),
    Entry("POST", "/admin/v1/keys/{id}/revoke", "revoke_key", KEYS, "End a key at once", Revocation),
    Entry("GET", "/admin/v1/deployments", "deployments", ("models:read",), "What is served"),
    Entry("POST", "/admin/v1/deployments", "propose", ("deploy:propose",), "Try a release as a candidate", Proposal),
    Entry("POST", "/admin/v1/deployments/rollback", "rollback", ("deploy:rollback",), "Go back at once", Rollback),
    Entry("GET", "/admin/v1/audit", "events", ("audit:read",), "Who did what"),
    Entry("GET", "/metrics", "metrics", ("metrics:read",), "Counters and latencies"),
    Entry("GET", "/healthz", "healthy", (), "The process is up"),
]


@dataclass
class Admin:
    """The handlers."""

    follower: Follower
    store: Keys
    meters: Meters
    _repeated: OrderedDict[tuple[str, str], tuple[float, bytes, Response]] = field(default_factory=OrderedDict)
    _ordering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def keys(self, call: Call[Any]) -> Response:
        """GET /admin/v1/keys."""
        found = await asyncio.to_thread(self.store.listed)
        return JSONResponse({"data": [told(one) for one in found]})

    async def create_key(self, call: Call[NewKey]) -> Response:
        """POST /admin/v1/keys: the key is shown here and never again, to a repeated request neither."""
        asked = call.asked
        if lacks := sorted(set(asked.scopes) - set(call.key.scopes) - set(ASKING)):  # which any keys:admin may give
            raise Refused("insufficient_scope", f"A key cannot give the scope '{lacks[0]}' that it lacks.", "scopes")

        def make() -> dict[str, Any]:
            scopes, groups = tuple(asked.scopes), tuple(asked.groups)
            return _shown(
                self.store.create(
                    asked.owner, scopes, groups, asked.days, call.wall, limits=asked.limits, actor=call.key.id
                )
            )

        return await self._once(call, make)

    async def rotate_key(self, call: Call[Rotation]) -> Response:
        """POST /admin/v1/keys/{id}/rotate: the new key is shown here and never again, as one that is made."""
        asked, identifier = call.asked, call.request.path_params["id"]

        def rotate() -> dict[str, Any]:
            scopes = {scope for one in self.store.listed() if one.id == identifier for scope in one.scopes}
            if lacks := sorted(scopes - set(call.key.scopes) - set(ASKING)):
                raise Refused("insufficient_scope", f"That key has the scope '{lacks[0]}', which this one lacks.")
            return _shown(self.store.rotate(identifier, asked.overlap_hours, asked.days, call.wall, call.key.id))

        return await self._once(call, rotate)

    async def revoke_key(self, call: Call[Revocation]) -> Response:
        """POST /admin/v1/keys/{id}/revoke."""
        identifier = call.request.path_params["id"]

        def revoke() -> dict[str, Any]:
            self.store.revoke(identifier, call.wall, call.key.id, call.asked.reason)
            return {"id": identifier, "revoked": int(call.wall)}

        return await self._once(call, revoke)

    async def deployments(self, call: Call[Any]) -> Response:
        """GET /admin/v1/deployments: what serves, what is tried, and what became of what was."""
        follower = self.follower
        history = await asyncio.to_thread(rollouts.read, self.store.home)
        said = {
            "state": follower.phase,
            "served": _named(follower.served),
            "candidate": _named(follower.candidate),
            "step": str(follower.rollout.step) if follower.rollout else None,
            "warm": sorted(one.release.version for one in follower.loaded.up.values() if one.alive),
            "failed": follower.failed,
            "history": [vars(one) | {"reason": one.told} for one in history[-LAST_EVENTS:]],
        }
        return JSONResponse(said)

    async def propose(self, call: Call[Proposal]) -> Response:
        """POST /admin/v1/deployments: a release that went back once may be tried again, by a person."""
        repository, home, asked = self.follower.repository, self.store.home, call.asked

        def assign() -> dict[str, Any]:
            found = registry.find(repository, asked.version)
            if registry.current(repository) and not (said := self.follower.permits(found)).allowed:
                raise Refused("deploy_frozen", f"{said.reason[0].upper()}{said.reason[1:]}.")
            _agreed(repository, found)
            rollouts.proposed(repository, home, found, call.key.id, asked.reason, call.wall)
            return {"version": found.version, "digest": found.digest}

        return await self._once(call, assign)

    async def rollback(self, call: Call[Rollback]) -> Response:
        """POST /admin/v1/deployments/rollback: done when the release before answers."""
        follower = self.follower

        def back() -> dict[str, Any]:
            made = rollouts.back(follower.repository, self.store.home, call.key.id, call.asked.reason, call.wall)
            return {"version": made.release.version, "digest": made.release.digest}

        said = await self._once(call, back)
        await follower.look()
        return said

    async def events(self, call: Call[Any]) -> Response:
        """GET /admin/v1/audit: the last events, and whether the chain is whole."""

        def read() -> dict[str, Any]:
            try:
                whole: bool | str = audit.verify(self.store.home) >= 0
            except AccessDenied as error:
                whole = error.what
            return {"whole": whole, "data": audit.events(self.store.home, LAST_EVENTS)}

        return JSONResponse(await asyncio.to_thread(read))

    async def metrics(self, call: Call[Any]) -> Response:
        """GET /metrics."""
        served = self.follower.served
        self.meters.queue.set(served.turns.waiting if served else 0)
        self.meters.engines.labels("warm").set(served.warm if served else 0)
        self.meters.engines.labels("starting").set(served.starting if served else 0)
        self.meters.engines.labels("leaving").set(len(served.leaving) if served else 0)
        return Response(self.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthy(self, call: Call[Any]) -> Response:
        """GET /healthz."""
        return JSONResponse({"ok": True})

    async def _once(self, call: Call[Any], act: Any) -> Response:
        """Do something, or say again what came of it where the same Idempotency-Key asked for the same before.

        One that is repeated while the first is carried out waits for what comes of that. A key is not remembered: who
        did not get the answer that held it rotates it.
        """
        name = call.request.headers.get("idempotency-key")
        ordering = self._ordering.setdefault((call.key.id, name), asyncio.Lock()) if name else asyncio.Lock()
        async with ordering:
            return await self._done(call, act, name)

    async def _done(self, call: Call[Any], act: Any, name: str | None) -> Response:
        body = f"{call.request.url.path} {call.asked!r}".encode()
        while self._repeated and next(iter(self._repeated.values()))[0] + REPEATED_S < call.wall:
            self._repeated.popitem(last=False)
        if name and (before := self._repeated.get((call.key.id, name))):
            if before[1] != body:
                raise Refused("conflict", "This Idempotency-Key was used for something else.")
            return before[2]
        try:
            said = await asyncio.to_thread(act)
        except RepositoryError:
            raise Refused("conflict", "Somebody else assigned a release meanwhile; look, and ask again.") from None
        except (DiskFull, StorageError, ParamsError, OSError):
            raise Refused("dependency_unavailable", "It could not be kept, and was not done; try again.") from None
        except (AccessDenied, ReleaseInvalid) as error:
            raise Refused("invalid_value", f"{error.what[0].upper()}{error.what[1:]}.") from None
        if name:
            kept = said | {"key": None, "shown": True} if "key" in said else said
            self._repeated[call.key.id, name] = (call.wall, body, JSONResponse(kept))
            while len(self._repeated) > REPEATED_MOST:
                self._repeated.popitem(last=False)
        return JSONResponse(said)


def _shown(key: str) -> dict[str, Any]:
    """A key that was just made, and the id that it goes by."""
    return {"id": key.split("_")[2], "key": key}


def _named(served: Served | None) -> dict[str, Any] | None:
    """A release that is up."""
    if served is None:
        return None
    return {
        "version": served.release.version,
        "digest": served.release.digest,
        "busy": served.busy,
        "engines": served.warm,
    }


def told(key: Key) -> dict[str, Any]:
    """What may be said of a key."""
    said: dict[str, Any] = {"id": key.id, "owner": key.owner, "scopes": list(key.scopes), "groups": list(key.groups)}
    said |= {"created": key.created, "expires": key.expires, "revoked": key.revoked}
    slots = [vars(one) for one in key.secrets]
    return said | {"limits": key.limits.model_dump() if key.limits else None, "secrets": slots}


def _agreed(repository: Path, release: Release) -> None:
    """Raises Refused where a release comes to production by other environments, or by other people's approval."""
    environments = params.load(repository / params.FILE, Environments)
    before = environments.before(registry.PROD)
    if before and not registry.assigned(repository, release.digest, before.name):
        raise Refused("conflict", f"It was never in {before.name}, which comes before {registry.PROD}.", "version")
    if environments.prod.approvals:
        raise Refused("conflict", "Others have to agree to it here: `nightshift promote` takes it there.", "version")
