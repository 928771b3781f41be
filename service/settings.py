"""Every option of the service, its default and its unit; no other module reads the environment."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from features.errors import ConfigError
from service.cores import usable_cores
from service.limits import Limits
from service.trial import KINDS, Trial

PREFIX = "DEEPFM_"
# Kubernetes puts such names into every pod beside a Service called `deepfm`.
_INJECTED = re.compile(
    r"DEEPFM_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)"
)


class Settings(BaseModel):
    """Options, from arguments first, then `DEEPFM_*` variables, then the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path = Field(description="ROOT/NAME, the folder that holds the versions")
    version: int | None = Field(
        default=None, ge=1, description="version to serve; default the newest"
    )
    canary: int | None = Field(
        default=None, ge=1, description="second version, which answers a share of the requests"
    )
    canary_share: float = Field(
        default=0.05, gt=0, le=1, description="share of the requests that the canary answers"
    )
    shadow: int | None = Field(
        default=None, ge=1, description="second version, which scores in the background"
    )
    shadow_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the requests that the shadow scores"
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="execution provider"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one"
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="processes; auto starts one per usable core"
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="threads that share the rows of a run; default: usable cores over workers",
    )
    max_body_bytes: int = Field(default=8 << 20, ge=1, description="largest request body")
    max_rows: int = Field(
        default=10_000, ge=1, description="most instances or candidates of a request"
    )
    rows_per_run: int = Field(
        default=256,
        ge=1,
        description="most rows of one run of the model; more gain little on a CPU, and a small "
        "request waits longer for the run that it finds",
    )
    max_worker_mb: int | None = Field(
        default=None,
        ge=1,
        description="memory of a worker in MB, as its system counts what no file backs, beyond "
        "which another one takes its place; default: no bound",
    )
    reload_poll_s: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds between looks for a new version; 0 looks never",
    )
    admin_keys_file: FilePath | None = Field(
        default=None,
        description="keys that open /admin, one a line, read again when it changes; "
        "without it there is no /admin",
    )
    trusted_keys_file: FilePath | None = Field(
        default=None,
        description="public keys (Ed25519, PEM), read for every version: one that none of them has "
        "signed is refused",
    )
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port on which /admin is, and nothing else; the other port then has no /admin",
    )
    admin_host: str = Field(
        default="127.0.0.1", description="address to listen on with the admin port"
    )
    api_keys_file: FilePath | None = Field(
        default=None,
        description="keys, one a line, read again when it changes: all but /healthz, /readyz and "
        "the page /docs then needs one of them",
    )
    request_log: Path | None = Field(
        default=None,
        description="file for a log of requests, `-` for stdout; without it nothing of a request "
        "is logged",
    )
    request_log_share: float = Field(
        default=0.01, ge=0, le=1, description="share of the requests that are logged"
    )
    request_log_fields: tuple[str, ...] = Field(
        default=(),
        description="fields whose values are logged, separated by commas; no other value is",
    )
    max_text: int = Field(
        default=1024, ge=1, description="most characters of a category, and of an id that is a text"
    )
    max_list: int = Field(
        default=1000, ge=1, description="most elements of a multi-valued field's list"
    )
    max_depth: int = Field(
        default=32,
        ge=8,
        le=256,
        description="most lists and objects inside each other; /rank itself needs five",
    )
    max_queued_rows: int = Field(
        default=65_536,
        ge=1,
        description="most rows that wait for a run; short and long requests each have as many",
    )
    default_deadline_ms: int = Field(
        default=5000,
        ge=0,
        description="deadline of a request without X-Deadline-Ms, in milliseconds; 0 for none",
    )
    max_connections: int = Field(
        default=8192, ge=1, description="most connections of a worker; further ones get a 503"
    )
    max_header_bytes: int = Field(
        default=32_768, ge=256, description="most bytes of a request before its body"
    )
    max_headers: int = Field(default=100, ge=1, description="most headers of a request")
    read_timeout_s: float = Field(
        default=30, gt=0, description="seconds for a request to arrive in, head and body"
    )
    keep_alive_s: float = Field(
        default=75, gt=0, description="seconds that an idle connection is kept"
    )
    drain_s: float = Field(
        default=1.0,
        ge=0,
        description="seconds of accepting connections after SIGTERM, not ready any more",
    )
    grace_s: int = Field(
        default=30, ge=0, description="seconds to finish requests in, once none is accepted"
    )

    @field_validator("workers", mode="before")
    @classmethod
    def _one_per_core(cls, given: Any) -> Any:
        return usable_cores() if given == "auto" else given

    @field_validator("request_log_fields", mode="before")
    @classmethod
    def _separated(cls, given: Any) -> Any:
        return [n for n in map(str.strip, given.split(",")) if n] if type(given) is str else given

    @field_validator("request_log")
    @classmethod
    def _in_a_folder(cls, given: Path | None) -> Path | None:
        if given is not None and not given.parent.is_dir():
            raise ValueError(f"there is no folder {given.parent}")
        return given

    @field_validator("admin_port")
    @classmethod
    def _an_own_port_with_keys(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given is not None and info.data.get("admin_keys_file") is None:
            raise ValueError("it needs admin_keys_file: without keys there is no /admin")
        if given is not None and given == info.data.get("port"):
            raise ValueError("it must be another port than that of the service")
        return given

    @field_validator(*KINDS)
    @classmethod
    def _one_beside_another(cls, given: int | None, known: ValidationInfo) -> int | None:
        if given is not None and given == known.data.get("version"):
            raise ValueError("must be another version than the one to serve")
        if given is not None and known.field_name == "shadow" and known.data.get("canary"):
            raise ValueError("there is a canary already; one second version is loaded at a time")
        return given

    @field_validator("max_worker_mb")
    @classmethod
    def _several_workers(cls, given: int | None, known: ValidationInfo) -> int | None:
        if given is not None and known.data.get("workers") == 1:
            raise ValueError("needs two workers or more: another one takes the place")
        return given

    @property
    def trial(self) -> Trial | None:
        """The second version to begin with."""
        if self.canary is not None:
            return Trial(self.canary, "canary", self.canary_share)
        if self.shadow is not None:
            return Trial(self.shadow, "shadow", self.shadow_share)
        return None

    @property
    def limits(self) -> Limits:
        """Bounds of requests and of what waits."""
        return Limits(
            self.max_rows, self.max_text, self.max_list, self.max_depth, self.max_queued_rows
        )

    @property
    def threads_per_run(self) -> int:
        """Threads that share the rows of a run."""
        return self.threads or max(1, usable_cores() // self.workers)


def load_settings(**given: Any) -> Settings:
    """Settings of the process.

    Args:
        given: options that win over the environment.

    Raises:
        ConfigError: a `DEEPFM_*` variable is unknown, or an option is absent or out of range.
    """
    environment = _without_injected()
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.upper() not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise ConfigError(f"unknown variable {name}; the nearest valid one is {near}")
    values = {name[len(PREFIX) :].lower(): value for name, value in environment.items()}
    try:
        return Settings.model_validate(values | given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        # What a validator of ours says is told as it stands.
        reason = first.get("ctx", {}).get("error") or first["msg"].lower()
        raise ConfigError(f"option {name} ({PREFIX}{name.upper()}): {reason}") from error


def _without_injected() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
        and not _INJECTED.fullmatch(name)
        and not (name == "DEEPFM_PORT" and "://" in value)
    }
