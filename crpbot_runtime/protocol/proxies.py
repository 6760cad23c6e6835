"""Which proxy leads to an address. A wrong setting of the environment ends in one sentence, and only where it matters."""

import ipaddress
from urllib.request import getproxies, proxy_bypass

import httpx

from crpbot_runtime.errors import Misconfigured


def find_proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment, or the system, names for this address; None for a direct connection.

    Never one for this machine itself. Raises Misconfigured if it cannot be used; the message shows no password.
    """
    proxies = getproxies()
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    text = proxies.get(scheme)
    if not text or _is_loopback(url.host) or _is_excepted(url.host, proxies.get("no", "")):
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
        if proxy.url.host:
            return proxy
        cause = "it names no host"
    raise Misconfigured(
        f"the proxy of {name} cannot be used ({cause}); correct it, unset it, or name {url.host} in NO_PROXY"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a domain with all below it, an address, or a network such as 10.0.0.0/8."""
    entries = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]
    return any(_matches(host.lower(), entry) for entry in entries) or bool(proxy_bypass(host))


def _matches(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name
        name = entry.removeprefix("*").lstrip(".")
        return entry == "*" or host == name or host.endswith(f".{name}")
