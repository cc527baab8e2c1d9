"""What each request does to a configuration: (configuration, operation, arguments) to a new configuration.

Arguments come from outside and are trusted in nothing. An error leaves everything as it was: the configuration given is
a value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from l4lb import document, settings
from l4lb.errors import L4lbError, UsageError
from l4lb.model import Admin, Backend, Config, Endpoint, Protocol, Service, Vip
from l4lb.rules import check

Arguments = Mapping[str, object]


def apply_change(config: Config, operation: str, arguments: Arguments) -> Config:
    """The configuration after one of the :data:`CHANGES`.

    Raises:
        UsageError: an argument is missing, unknown, of a wrong type or never possible.
        L4lbError: what it names does not exist, or exists already.
    """
    change, allowed = _CHANGES[operation]
    for name in arguments:
        if name not in allowed:
            raise UsageError(f"{operation} takes no argument {name!r}", f"it takes {', '.join(allowed)}")
    changed = change(config, arguments)
    check(changed)
    return changed


@dataclass(frozen=True, slots=True)
class Question:
    """What `l4lb explain` asks: what becomes of a packet from `client` to `service`; `begins` if it is a SYN."""

    protocol: Protocol
    client: Endpoint
    service: Endpoint
    begins: bool


def parse_question(arguments: Arguments) -> Question:
    """A question from its arguments.

    Raises:
        UsageError: one of them is missing or wrong.
    """
    protocol = Protocol.parse(settings.value(arguments, "protocol", str))
    begins = arguments.get("begins", False)
    if not isinstance(begins, bool) or (begins and protocol is not Protocol.TCP):
        raise UsageError("only a TCP packet can be a SYN", "leave --syn out")
    client, service = (Endpoint.parse(settings.value(arguments, name, str)) for name in ("client", "service"))
    return Question(protocol, client, service, begins)


def find_vip(config: Config, name: str) -> Vip:
    """The VIP of that name."""
    for vip in config.vips:
        if vip.name == name:
            return vip
    raise L4lbError(f"there is no VIP {name!r}", _suggestion(name, [vip.name for vip in config.vips], "l4lb vip add"))


def find_backend(vip: Vip, endpoint: Endpoint) -> Backend:
    """The backend of a VIP with that endpoint."""
    for backend in vip.backends:
        if backend.endpoint == endpoint:
            return backend
    known = [str(backend.endpoint) for backend in vip.backends]
    raise L4lbError(
        f"VIP {vip.name} has no backend {endpoint}", _suggestion(str(endpoint), known, f"l4lb backend add {vip.name}")
    )


def _suggestion(wrong: str, known: list[str], add: str) -> str:
    if not known:
        return f"there is none yet; add one with `{add}`"
    near = get_close_matches(wrong, known, n=3, cutoff=0.5) or sorted(known)[:5]
    return f"did you mean {' or '.join(near)}?"


def _config_apply(config: Config, arguments: Arguments) -> Config:
    return document.parse(arguments.get("document"), config.seed)


def _vip_add(config: Config, arguments: Arguments) -> Config:
    protocol = Protocol.parse(settings.value(arguments, "protocol", str))
    service = Service.parse(settings.value(arguments, "address", str), protocol)
    vip = Vip.bare(settings.value(arguments, "name", str), service)
    return _with_vips(config, (*config.vips, settings.changed(vip, arguments)))


def _vip_set(config: Config, arguments: Arguments) -> Config:
    vip = find_vip(config, settings.value(arguments, "name", str))
    return _with_vip(config, settings.changed(vip, arguments))


def _vip_remove(config: Config, arguments: Arguments) -> Config:
    gone = find_vip(config, settings.value(arguments, "name", str))
    return _with_vips(config, tuple(vip for vip in config.vips if vip is not gone))


def _backend_add(config: Config, arguments: Arguments) -> Config:
    vip, endpoint = vip_and_endpoint(config, arguments)
    backend = settings.changed_backend(Backend(endpoint), arguments)
    return _with_vip(config, replace(vip, backends=(*vip.backends, backend)))


def _backend_set(config: Config, arguments: Arguments) -> Config:
    vip, endpoint = vip_and_endpoint(config, arguments)
    old = find_backend(vip, endpoint)
    return _with_backend(config, vip, old, settings.changed_backend(old, arguments))


def _administered(admin: Admin) -> Callable[[Config, Arguments], Config]:
    def change(config: Config, arguments: Arguments) -> Config:
        vip, endpoint = vip_and_endpoint(config, arguments)
        old = find_backend(vip, endpoint)
        return _with_backend(config, vip, old, replace(old, admin=admin))

    return change


def _with_backend(config: Config, vip: Vip, old: Backend, new: Backend) -> Config:
    return _with_vip(
        config, replace(vip, backends=tuple(new if backend is old else backend for backend in vip.backends))
    )


def _backend_remove(config: Config, arguments: Arguments) -> Config:
    vip, endpoint = vip_and_endpoint(config, arguments)
    gone = find_backend(vip, endpoint)
    return _with_vip(config, replace(vip, backends=tuple(backend for backend in vip.backends if backend is not gone)))


def vip_and_endpoint(config: Config, arguments: Arguments) -> tuple[Vip, Endpoint]:
    """The VIP and the endpoint that arguments name; a port that is left out is the VIP's."""
    vip = find_vip(config, settings.value(arguments, "vip", str))
    return vip, Endpoint.parse(settings.value(arguments, "address", str), default_port=vip.service.backend_port)


def _with_vip(config: Config, changed: Vip) -> Config:
    ordered = replace(changed, backends=tuple(sorted(changed.backends, key=lambda backend: backend.endpoint)))
    return _with_vips(config, tuple(ordered if vip.name == changed.name else vip for vip in config.vips))


def _with_vips(config: Config, vips: tuple[Vip, ...]) -> Config:
    return replace(config, vips=tuple(sorted(vips, key=lambda vip: vip.name)))


_CHANGES: dict[str, tuple[Callable[[Config, Arguments], Config], tuple[str, ...]]] = {
    "config.apply": (_config_apply, ("document",)),
    "vip.add": (_vip_add, ("name", "address", "protocol", *settings.SETTINGS)),
    "vip.set": (_vip_set, ("name", *settings.SETTINGS)),
    "vip.remove": (_vip_remove, ("name",)),
    "backend.add": (_backend_add, ("vip", "address", *settings.BACKEND_SETTINGS)),
    "backend.set": (_backend_set, ("vip", "address", *settings.BACKEND_SETTINGS)),
    "backend.drain": (_administered(Admin.DRAIN), ("vip", "address")),
    "backend.disable": (_administered(Admin.DISABLED), ("vip", "address")),
    "backend.resume": (_administered(Admin.NONE), ("vip", "address")),
    "backend.remove": (_backend_remove, ("vip", "address")),
}

CHANGES = frozenset(_CHANGES)
