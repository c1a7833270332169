"""A service in one folder: its database, keys, policy, desk and workroom, put together.

home/service.db       the tables, unless another database is named
home/keys/            that sign certificates and commit to owners' rows (`expunge keys`)
home/identities/      under which people are looked up
home/seals/           one a request that holds plain words, destroyed with it
home/certificates/    one a batch
home/log/             of all certificates, append-only
home/policy.yaml      what is decided by; the default policy where there is none
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from expunge.audit.keys import KeyFolder
from expunge.errors import RunError
from expunge.service.carry import KINDS
from expunge.service.clock import Clock, system_clock
from expunge.service.database import Database, connect
from expunge.service.desk import Desk
from expunge.service.identity import Identities
from expunge.service.policy import Policy
from expunge.service.registry import Registry
from expunge.service.suppression import Suppression
from expunge.service.work import WorkRoom


@dataclass(frozen=True, kw_only=True)
class Service:
    """What API, pages, workers and commands are handed."""

    home: Path
    database: Database
    keys: KeyFolder
    identities: Identities
    policy: Policy
    clock: Clock
    registry: Registry
    desk: Desk
    suppression: Suppression
    work: WorkRoom = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "work", WorkRoom(self))

    @property
    def log_origin(self) -> str:
        """The name of the service's log of certificates."""
        return f"{self.keys.name}/service"

    def close(self) -> None:
        self.database.close()


def open_service(
    home: str | Path,
    *,
    database: str | None = None,
    policy: Policy | None = None,
    clock: Clock = system_clock,
    signer: str = "localhost/expunge",
) -> Service:
    """The service in `home`; what is missing there is made.

    Args:
        database: URL; an SQLite file in `home` by default. policy: ``policy.yaml`` in `home` by default.

    Raises:
        RunError: the folder or the database cannot be used. RequestError: the policy cannot be read.
    """
    folder = Path(home)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in ("certificates", "batches", "runs"):
            (folder / part).mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder} ({error.strerror})", "Choose a folder you may write to") from error
    keys_folder = folder / "keys"
    keys = (
        KeyFolder(keys_folder)
        if (keys_folder / "trusted.json").exists()
        else KeyFolder.make(keys_folder, signer, at=clock())
    )
    if policy is None:
        path = folder / "policy.yaml"
        policy = Policy.read(path) if path.exists() else Policy()
    tables = connect(database if database is not None else folder / "service.db")
    identities = Identities(folder)
    registry = Registry(tables, identities, clock, KINDS)
    return Service(
        home=folder,
        database=tables,
        keys=keys,
        identities=identities,
        policy=policy,
        clock=clock,
        registry=registry,
        desk=Desk(tables, identities, policy, clock, registry),
        suppression=Suppression(tables, identities, policy, clock),
    )
