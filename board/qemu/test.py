"""The daemon on a booted board, from outside: python3 board/qemu/test.py ARCHITECTURE, after image.sh.

The board starts it, it serves over the network, and its clients get the notice when the init script or the
switch stops it. Each step prints what it saw; the first that fails ends the test, with status 1.
"""

import re
import socket
import sys

from guest import TIMEOUT, Failure, Guest

ECHO, KV, TIME = 9999, 9996, 5006
SCRIPT = "/etc/init.d/S50lastorders"
DEFAULTS = "/etc/default/lastorders"
LOG = "/var/log/lastorders/lastorders.log"
# KiB that the idle daemon may touch where a pointer has 4 bytes.
BUDGET = 1024


class Client:
    """A connection from outside to a service of the guest."""

    def __init__(self, guest, port):
        self.socket = socket.create_connection(("127.0.0.1", guest.tcp[port]), TIMEOUT)
        self.socket.settimeout(TIMEOUT)

    def ask(self, request, reply):
        self.socket.sendall(request)
        got = b""
        while len(got) < len(reply) and (more := self.socket.recv(4096)):
            got += more
        expect(got == reply, f"{request!r} was answered {got!r}, not {reply!r}")

    def told(self):
        """Waits for the end of the connection, before which the notice must have come."""
        got = b""
        while more := self.socket.recv(4096):
            got += more
        self.socket.close()
        expect(got.strip() == b"SHUTDOWN", f"instead of the notice came {got!r}")


def expect(true, otherwise):
    if not true:
        raise Failure(otherwise)


def seen(text):
    print(f"   {text}", flush=True)


def process(guest):
    return re.search(r"running, process (\d+)", guest.run(f"{SCRIPT} status"))[1]


def boot(guest):
    said, kernel = guest.expect(r"Starting lastorders: (.*)started after ([\d.]+) s").groups()
    expect(said == "OK\n", f"the init script said {said!r}")
    Client(guest, ECHO).ask(b"first", b"first")
    seen(f"served {guest.age():.1f} s after power on; the kernel's clock said {kernel} s when BusyBox init had started all")
    guest.expect(r"/ # ")


def serve(guest):
    Client(guest, ECHO).ask(b"hello", b"hello")
    Client(guest, KV).ask(b"SET board 1\nGET board\n", b"READY\nOK\n1\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(TIMEOUT)
        asker.connect(("127.0.0.1", guest.udp[TIME]))
        asker.send(b'{"type": "time"}')
        answer = asker.recv(4096)
        expect(re.fullmatch(rb'\{"time": "[-\d]+ [:.\d]+"\}', answer), f"time answered {answer!r}")
    guest.run("touch /etc/x 2>/dev/null", status=1)
    seen(f"echo, kv and time answer; the root file system is read-only; {answer.decode()}")


def held(guest, number):
    """KiB that a process holds, by what they belong to: all, and anonymous ones."""
    sums = {}
    name = ""
    for line in guest.run(f"cat /proc/{number}/smaps").splitlines():
        if match := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            name = match[1].rpartition("/")[2] or "[no name: the threads' stacks, large tables]"
        elif match := re.match(r"(Rss|Anonymous): +(\d+) kB", line):
            sums.setdefault(name, {"Rss": 0, "Anonymous": 0})[match[1]] += int(match[2])
    sums["in all"] = {kind: sum(sizes[kind] for sizes in sums.values()) for kind in ["Rss", "Anonymous"]}
    return sums


def memory(guest):
    """Says what the idle daemon holds, and of what kind."""
    number = process(guest)
    status = dict(re.findall(r"(\w+):\s+(\d+)", guest.run(f"cat /proc/{number}/status")))
    seen("Threads {Threads}, VmRSS {VmRSS} KiB: {RssAnon} anonymous, {RssFile} of files; VmSize {VmSize} KiB".format(**status))
    expect(status["Uid"] != "0", "it runs as root")
    # The kernel counts VmRSS for each thread by itself and adds up only now and then; smaps is counted when read.
    for name, sizes in sorted(held(guest, number).items(), key=lambda item: -item[1]["Rss"]):
        if sizes["Rss"] > 4:
            seen(f"{sizes['Rss']:6} KiB, {sizes['Anonymous']:4} of them anonymous: {name}")
    # With a page of a file come its neighbours that are in memory anyway, 64 KiB at once. Without them, this is
    # what the daemon itself has asked for.
    guest.run("mount -t debugfs debugfs /sys/kernel/debug && echo 4096 >/sys/kernel/debug/fault_around_bytes")
    guest.run(f"{SCRIPT} restart")
    touched = held(guest, process(guest))
    guest.run("echo 65536 >/sys/kernel/debug/fault_around_bytes && umount /sys/kernel/debug")
    parts = ", ".join(f"{sizes['Rss']} {name}" for name, sizes in sorted(touched.items(), key=lambda item: -item[1]["Rss"])
                      if sizes["Rss"] > 4 and name != "in all")
    seen(f"touched by itself: {touched['in all']['Rss']} KiB: {parts}")
    if guest.arch == "armhf":
        expect(touched["in all"]["Rss"] <= BUDGET, f"that is over the budget of {BUDGET} KiB")


def restart(guest):
    before = process(guest)
    clients = [Client(guest, ECHO), Client(guest, KV)]
    clients[0].ask(b"here", b"here")
    clients[1].ask(b"SET board 1\n", b"READY\nOK\n")
    guest.begin(f"{SCRIPT} restart")
    for client in clients:
        client.told()
    code, text = guest.outcome()
    expect(code == 0 and text.count("OK") == 2, f"restart ended with {code} and said {text!r}")
    expect(process(guest) != before, "restart left the same process")
    Client(guest, ECHO).ask(b"again", b"again")
    seen("restart told the clients of echo and kv SHUTDOWN, and a new process serves")


def script(guest):
    guest.run(f"mv {LOG} {LOG}.old && {SCRIPT} reload")
    Client(guest, ECHO).ask(b"logged", b"logged")
    guest.run(f"until [ -e {LOG} ]; do sleep 0.1; done")
    guest.run("lastorders control --socket /run/lastorders/control status | grep accepted")
    seen("reload opened a new log file; control status answers")
    guest.run(f"{SCRIPT} start | grep 'OK (it is running)'")
    guest.run(f"{SCRIPT} stop && ! {SCRIPT} status")
    guest.run(f"{SCRIPT} status", status=3)
    guest.run(f"{SCRIPT} reload", status=7)
    guest.run(f"{SCRIPT} stop")
    guest.run(f"{SCRIPT} nonsense", status=2)
    guest.run(f"{SCRIPT} start")
    number = process(guest)
    guest.run(f"kill -KILL {number}; while [ -e /proc/{number} ]; do sleep 0.1; done; {SCRIPT} status", status=1)
    guest.run(f"{SCRIPT} start")
    Client(guest, ECHO).ask(b"again", b"again")
    seen("start, stop, status and reload end with honest statuses; a stale pid file is no obstacle")
    guest.run(f"kill -STOP {process(guest)} && {SCRIPT} stop | grep 'OK (killed)'")
    seen("a daemon that does not come to an end is killed")


def mistakes(guest):
    def change(line):
        guest.run(f"cp {DEFAULTS} /run/defaults && echo '{line}' >>/run/defaults")
        guest.run(f"mount -o bind /run/defaults {DEFAULTS}")

    for line, status, reason in [
        ('LASTORDERS_ARGS="--workers many"', 2, '--workers "many"'),
        ('LASTORDERS_ARGS="--tcp echo=192.0.2.1:9"', 1, "192.0.2.1:9"),
        ("LASTORDERS_USER=nobody-here", 2, "nobody-here"),
    ]:
        change(line)
        guest.begin(f"{SCRIPT} start")
        code, text = guest.outcome()
        expect(code == status and reason in text and "FAIL" in text, f"{line}: start ended with {code} and said {text!r}")
        seen(f"{line}: {text.strip().splitlines()[-1]}")
        guest.run(f"umount {DEFAULTS}")
    change("LASTORDERS_GRACE=08")
    guest.run(f"{SCRIPT} start && {SCRIPT} stop | grep OK")
    guest.run(f"umount {DEFAULTS}")
    seen("a grace time of 08 is 8 seconds")
    guest.run(f"{SCRIPT} start")


def power_off(guest):
    clients = [Client(guest, ECHO), Client(guest, KV)]
    clients[0].ask(b"here", b"here")
    clients[1].ask(b"GET board\n", b"READY\nNOT_FOUND\n")
    began = guest.age()
    guest.type("poweroff")
    for client in clients:
        client.told()
    guest.switched_off()
    seen(f"poweroff told the clients SHUTDOWN, and the machine was off {guest.age() - began:.1f} s later")


def main(arch):
    guest = Guest(f"target/board/{arch}", arch, tcp=[ECHO, KV], udp=[TIME])
    with guest:
        for step in [boot, serve, memory, restart, script, mistakes, power_off]:
            print(f"{arch}: {step.__name__.replace('_', ' ')}", flush=True)
            step(guest)
    print(f"{arch}: all as it should be, in {guest.age():.0f} s")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (Failure, OSError) as error:
        sys.exit(f"board-test: {error}")
