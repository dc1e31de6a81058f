"""Redis behind cables of its own, one to each instance, that can be cut in one direction.

Redis runs in a network namespace, and each cable is a veth pair. A cut lets packets of one direction
go to a hardware address that nobody has: they are lost, silently, and what was sent is sent again by
TCP when the cable is whole.
"""
import contextlib
import subprocess


class NotPermitted(Exception):
    """No namespaces or no veth pairs are to be had here."""


def ip(*words):
    try:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise NotPermitted("there is no ip(8)") from None
    except subprocess.CalledProcessError as e:
        raise NotPermitted("ip %s: %s" % (" ".join(words), e.stderr.strip())) from None


NOBODY = "02:00:00:00:ff:ff"


class Cable:
    """here: this end's address and interface; there: that of Redis."""

    def __init__(self, network, number, subnet):
        self.network = network
        self.here, self.there = ("%s%d" % (subnet[0], subnet[1] + i) for i in (1, 2))
        self.ends = ["%s%d%s" % (network.name, number, side) for side in "ab"]
        here, there = self.ends
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", network.name)
        for namespace, end, address in (((), here, self.here),
                                        (("-n", network.name), there, self.there)):
            ip(*namespace, "addr", "add", address + "/30", "dev", end)
            ip(*namespace, "link", "set", end, "up")
        self.mend()

    def _reach(self, side, address):
        namespace = ("-n", self.network.name) if side else ()
        ip(*namespace, "neigh", "replace", (self.here, self.there)[1 - side], "lladdr", address,
           "nud", "permanent", "dev", self.ends[side])

    def _hardware(self, side):
        namespace = ("-n", self.network.name) if side else ()
        words = ip(*namespace, "-o", "link", "show", self.ends[side]).split()
        return words[words.index("link/ether") + 1]

    def cut(self, to_redis):
        """What goes to Redis is lost from now on, or what comes from there."""
        self._reach(0 if to_redis else 1, NOBODY)

    def mend(self):
        for side in (0, 1):
            self._reach(side, self._hardware(1 - side))


class Network:
    """A namespace with n cables to it; .under is what runs a program there."""

    def __init__(self, number, n):
        self.name = "wf%d" % (number % 100000)
        self.under = ["ip", "netns", "exec", self.name]
        ip("netns", "add", self.name)
        try:
            base = number * 32 % (1 << 17)       # 198.18.0.0/15 is there for tests (RFC 2544)
            subnet = "198.%d.%d." % (18 + (base >> 16), base >> 8 & 255)
            self.cables = [Cable(self, i, (subnet, (base & 255) + 4 * i)) for i in range(n)]
        except NotPermitted:
            self.end()
            raise

    def end(self):
        with contextlib.suppress(NotPermitted):
            ip("netns", "del", self.name)        # the cables go with it
