"""Tells addresses of the internet from those of this machine and of local networks.

Invariant: what is not certainly public is not public.
"""

import ipaddress

_NAT64 = 0x64FF9B << 64
"""The prefix 64:ff9b::/96 (RFC 6052), without the IPv4 address behind it."""
_INTERNET = ipaddress.IPv6Network("2000::/3")
"""All that is handed out of IPv6 (RFC 4291, 2.5.4); the rest is reserved, local or translated."""
_EXCEPT = tuple(map(ipaddress.ip_network, ("192.88.99.0/24", "2001:10::/28", "3fff::/20")))
"""Not public either, which not every Python knows: 6to4 relays (RFC 7526), ORCHID (RFC 4843), examples (RFC 9637)."""


def is_public(address: str) -> bool:
    """Return True for an IP address of the internet, False for one of this machine or of a local network.

    An IPv4 address inside an IPv6 one counts: mapped, compatible, 6to4, Teredo, NAT64.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return _is_global(found)
    number, inner = int(found), found.ipv4_mapped or found.sixtofour
    if inner is None and (number >> 32 in (0, _NAT64)):
        inner = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    inside = [inner] if inner is not None else list(found.teredo or ())
    if inside:
        return all(map(_is_global, inside))
    return found in _INTERNET and _is_global(found)


def _is_global(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return one.is_global and not one.is_multicast and not any(one in network for network in _EXCEPT)
