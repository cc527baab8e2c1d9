"""Configurations that obey the rules, for Hypothesis."""

from ipaddress import IPv4Address

from hypothesis import strategies as st

from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Vip, problems

_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)


@st.composite
def _vips(draw: st.DrawFn) -> Vip:
    mode = draw(st.sampled_from(Mode))
    port = draw(st.integers(1, 65_535))
    places = draw(st.lists(st.integers(1, 250), max_size=4, unique=True))
    return Vip(
        name=draw(_names),
        endpoint=Endpoint(IPv4Address("192.0.2.0") + draw(st.integers(1, 250)), port),
        protocol=draw(st.sampled_from(Protocol)),
        mode=mode,
        backends=tuple(
            Backend(
                Endpoint(IPv4Address("10.0.0.0") + place, port if mode is Mode.DSR else draw(st.integers(1, 65_535))),
                draw(st.integers(0, 65_535)),
            )
            for place in sorted(places)
        ),
    )


configs = st.builds(
    lambda vips, seed: Config(tuple(sorted(vips, key=lambda vip: vip.name)), seed),
    st.lists(_vips(), max_size=4, unique_by=lambda vip: vip.name),
    st.integers(0, 2**64 - 1),
).filter(lambda config: not list(problems(config)))
