"""`create_app`: assembles the service, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from msgspec.structs import asdict
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Route

from features.description import schema_summary
from service.admin import AdminRoutes
from service.docs_page import docs, docs_file
from service.errors import ClientGone, NotReady, ServiceError, answer_to, problem_answer
from service.exchange import Exchange, exchange_of
from service.incoming import Receive, Scope, path_of
from service.keys import Door, Keys
from service.models import Models
from service.openapi import document
from service.owner import Owner, OwnVersions
from service.request_log import RequestLog
from service.routes import RankRoute, ScoreRoute, Send
from service.scorer import Scorer
from service.settings import Settings, load_settings
from service.telemetry import Telemetry
from service.trial import KINDS
from service.version_metrics import TrialCounts, VersionCounts


class App(FastAPI):
    """FastAPI with the scoring routes in front of its router.

    Args:
        settings: of the process.
        owner: decides which version answers.
    """

    def __init__(self, settings: Settings, owner: Owner) -> None:
        super().__init__(docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan)
        self.settings = settings
        self.owner = owner
        self.is_ending = False
        self.door = Door.of(settings)
        self.request_log = RequestLog.of(settings)
        self.models = Models()
        self.telemetry = Telemetry()
        self.registry = CollectorRegistry()
        self.registry.register(self.telemetry)
        self.registry.register(VersionCounts(self.models, owner))
        if self.request_log is not None:
            self.registry.register(self.request_log)
        self.registry.register(TrialCounts(self.models))
        routes = (
            ScoreRoute(self.models.pick, settings, self.telemetry),
            RankRoute(self.models.pick, settings, self.telemetry),
        )
        self.hot = {route.name: route for route in routes}
        self.hot_targets = {route.name.encode(): route for route in routes}
        for route in routes:  # the router knows them too: for 405
            self.router.routes.append(Route(route.name, route, methods=["POST"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer on the short way where there is one."""
        if self.door is not None and scope["type"] == "http":
            try:
                self.door.check(path_of(scope), scope)
            except ServiceError as error:
                self.telemetry.refuse(error.reason)
                await _response(*answer_to(error))(scope, receive, send)
                return
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self.hot.get(path_of(scope))
            if route is not None:
                second = self.models.second
                answer = route if second is None else partial(second.serve, route)
                if self.request_log is None:
                    await answer(scope, receive, send)
                else:
                    await self.request_log.answer(answer, scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def at_head(self, method: bytes, target: bytes, scope: Scope) -> Exchange | bytes | None:
        """A request that goes the direct way, or the answer that refuses it; None: the long way.

        Whoever the door refuses goes on, to be told so; so do requests that somebody watches (a
        second version, the log of requests).

        Args:
            method: of the request.
            target: its path and query.
            scope: in which these two are not yet.
        """
        route, model = self.hot_targets.get(target), self.models.current
        if route is None or model is None or method != b"POST":
            return None
        if self.models.second or (self.request_log and self.request_log.chooses(scope)):
            return None
        if self.door is not None:
            try:
                self.door.check(route.name, scope)
            except ServiceError:
                return None
        return exchange_of(route, model, scope["headers"])

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the fields of the model that answers."""
        current = self.models.current
        schema = None if current is None else current.scorer.bundle.schema
        return document(schema, self.settings.limits, self.settings.api_keys_file is not None)


def create_app(
    settings: Settings | None = None, scorer: Scorer | None = None, owner: Owner | None = None
) -> App:
    """The service as an ASGI application.

    Args:
        settings: default: from the environment.
        scorer: ready to answer; default: loaded at start-up, as the settings say.
        owner: decides which version answers; default: the process itself.

    Raises:
        ConfigError: the environment holds a wrong option.
    """
    settings = settings or load_settings()
    app = App(settings, owner or OwnVersions(settings, scorer))
    for path, answer in _READ.items():
        app.api_route(path, methods=["GET", "HEAD"])(answer)
    if settings.admin_keys_file is not None:
        admin = AdminRoutes(Keys(settings.admin_keys_file))
        app.post("/admin/reload")(admin.reload)
        for kind in KINDS:
            app.api_route(f"/admin/{kind}", methods=["POST", "DELETE"])(admin.beside(kind))
    app.add_exception_handler(ServiceError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _problem)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    assert isinstance(app, App)
    await app.owner.start(app.models)
    following = asyncio.create_task(app.owner.follow())
    if app.request_log is not None:
        app.request_log.start()
    yield
    following.cancel()
    if app.request_log is not None:
        await asyncio.to_thread(app.request_log.stop)
    app.models.put_beside(None)
    app.models.current = None


async def _healthz() -> dict[str, str]:
    return {"status": "alive"}


async def _readyz(request: Request) -> dict[str, Any]:
    model = request.app.models.current
    if model is None:
        raise NotReady("no model is being served yet")
    # Where a single worker ends, the server does not.
    if request.app.is_ending and not request.app.owner.standing.is_replaced:
        raise NotReady("the server is ending")
    answer = {
        "status": "ready",
        "model": model.name,
        "version": model.version,
        "provider": model.scorer.provider,
    }
    answer |= request.app.models.told_beside()
    refusals = request.app.owner.standing.refusals
    if refusals:
        answer["refused"] = [asdict(one) for one in refusals]
    return answer


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.registry), media_type=CONTENT_TYPE_LATEST)


async def _models(request: Request) -> dict[str, Any]:
    models: Models = request.app.models
    if models.current is None:
        raise NotReady("no model is being served yet")
    loaded = [
        {
            "version": version,
            "created": model.scorer.bundle.manifest.created,
            "precision": model.scorer.bundle.manifest.precision,
            "calibration": model.scorer.bundle.manifest.calibration["method"],
            "metrics": model.scorer.bundle.manifest.metrics,
            "schema": schema_summary(model.scorer.bundle.schema),
        }
        for version, model in sorted(models.loaded.items())
    ]
    current = models.current
    told = {"name": current.name, "version": current.version} | models.told_beside()
    return {"models": [told | {"versions": loaded}]}


_READ: dict[str, Callable[..., Any]] = {
    "/healthz": _healthz,
    "/readyz": _readyz,
    "/metrics": _metrics,
    "/v1/models": _models,
    "/docs": docs,
    "/docs/{name}": docs_file,
}


async def _problem(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientGone):
        return Response(status_code=error.status)  # which nobody reads
    return _response(*answer_to(error))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _response(*problem_answer(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def _response(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, named)
