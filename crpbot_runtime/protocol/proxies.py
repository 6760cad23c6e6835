"""Which proxy leads to an address. A wrong setting of the environment ends in one sentence, and only where it matters."""

import ipaddress
import re
from urllib.request import getproxies, proxy_bypass

import httpx

from crpbot_runtime.errors import Misconfigured


def find_proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment, or the system, names for this address; None for a direct connection.

    Never one for this machine itself. Raises Misconfigured if it cannot be used; the message shows no password.
    """
    proxies = {scheme: text.strip() for scheme, text in getproxies().items()}
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    text = proxies.get(scheme)
    if not text or _is_loopback(url.host) or _is_excepted(url, proxies.get("no", "")):
        return None
    name = f"{scheme.upper()}_PROXY"
    try:
        proxy = httpx.Proxy(text if "://" in text else f"http://{text}")
        httpx.HTTPTransport(verify=False, proxy=proxy).close()  # refuses a SOCKS proxy without its package
    except ImportError:
        raise Misconfigured(
            f"the proxy of {name} is a SOCKS proxy, which needs the package socksio: pip install 'httpx[socks]'"
        ) from None
    except httpx.InvalidURL:
        cause = "it is not a URL"
    except ValueError:
        cause = f"{text.partition('://')[0]}:// is no http, https, socks5 or socks5h"
    else:
        if is_host_name(proxy.url):
            return proxy
        cause = "it names no host"
    raise Misconfigured(
        f"the proxy of {name} cannot be used ({cause}); correct it, unset it, or name {url.host} in NO_PROXY"
    )


def is_host_name(url: httpx.URL) -> bool:
    """Whether it names a host that can be looked up: no part of it is empty or longer than 63 letters."""
    try:
        return bool(url.raw_host.decode().encode("idna"))
    except UnicodeError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_excepted(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a domain with all below it, an address, or a network such as 10.0.0.0/8.

    With a port, it names that port alone. Commas or spaces stand between entries.
    """
    hosts = {url.host.lower().rstrip("."), url.raw_host.decode().lower().rstrip(".")}
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        name, named_port = _split_port(entry)
        if name and named_port in ("", str(port)) and any(_matches(host, name) for host in hosts):
            return True
    return bool(proxy_bypass(url.host))


def _split_port(entry: str) -> tuple[str, str]:
    """`[::1]:80` and `host:80` have a port; an address of IPv6 without brackets has none."""
    found = re.fullmatch(r"(\[[^\]]*\](?:/\d+)?|[^:]*):(\d+)", entry)
    return (found[1], found[2]) if found else (entry, "")


def _matches(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:  # one of them is a name
        name = entry.removeprefix("*").strip(".")
        return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))
