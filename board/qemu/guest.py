"""A board in QEMU: started, driven over its serial console, and reached over its network.

In come the folder of an image and the ports of the guest that are to be reached; out go what the console shows,
the exit status and output of commands, and the ports of this machine that lead to the guest's. Nothing here waits
by sleeping, and nothing outlives the object, nor LIMIT.
"""

import re
import socket
import subprocess
import threading
import time

# Seconds for everything that is done with one guest; a machine without a spare processor needs them.
LIMIT = 300
# Seconds for one step.
TIMEOUT = 150

MACHINES = {
    "armhf": ["qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15"],
    "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"],
}


class Failure(Exception):
    """What was expected of the guest and did not come."""


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Guest:
    def __init__(self, images, arch, tcp, udp):
        self.tcp = {port: free_port(socket.SOCK_STREAM) for port in tcp}
        self.udp = {port: free_port(socket.SOCK_DGRAM) for port in udp}
        forwards = [("tcp", *pair) for pair in self.tcp.items()] + [("udp", *pair) for pair in self.udp.items()]
        # Not restrict=on: it drops what a forwarded UDP port answers. The guest has no route but to this machine.
        network = "user,id=net"
        for protocol, guest, host in forwards:
            network += f",hostfwd={protocol}:127.0.0.1:{host}-10.0.2.15:{guest}"
        command = ["timeout", "--kill-after=5", str(LIMIT), *MACHINES[arch]]
        command += ["-m", "128", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", f"{images}/vmlinuz", "-initrd", f"{images}/initrd"]
        # The last line of a panic is what a reader wants; it ends the machine.
        command += ["-append", "console=ttyAMA0 loglevel=3 panic=-1"]
        command += ["-drive", f"file={images}/root.squashfs,format=raw,if=none,id=disk,readonly=on"]
        command += ["-device", "virtio-blk-device,drive=disk"]
        command += ["-netdev", network, "-device", "virtio-net-device,netdev=net"]
        self.arch = arch
        self.text = ""
        self.seen = 0
        self.ended = False
        self.news = threading.Condition()
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            # timeout(1) passes it on.
            self.process.terminate()
        self.process.wait()
        self.reader.join()

    def _read(self):
        while chunk := self.process.stdout.read1(4096):
            with self.news:
                # The shell asks where its cursor is; there is no terminal to answer.
                self.text = (self.text + chunk.decode("utf-8", "replace")).replace("\r", "").replace("\x1b[6n", "")
                self.news.notify()
        with self.news:
            self.ended = True
            self.news.notify()

    def age(self):
        """Seconds since the machine was switched on."""
        return time.monotonic() - self.began

    def expect(self, pattern, timeout=TIMEOUT):
        """Waits until the console shows what matches, after what was expected before. Returns the match."""
        def found():
            return re.compile(pattern, re.S).search(self.text, self.seen)

        with self.news:
            self.news.wait_for(lambda: found() or self.ended, timeout)
            match = found()
            if not match:
                raise Failure(f"the console did not show {pattern!r}; it shows:\n{self.text[self.seen:]}")
            self.seen = match.end()
            return match

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def begin(self, command):
        """Types a command, the outcome of which `outcome` waits for."""
        # As typed, and so as echoed, neither of the two marks is what is waited for.
        self.type(f'echo "<"">"; {command}; echo "<"$?">"')

    def outcome(self):
        """Waits for the command, and returns its exit status and what it said."""
        match = self.expect(r"<>\n(.*?)<(\d+)>\n")
        return int(match[2]), match[1]

    def run(self, command, status=0):
        """Runs a command that ends with this status. Returns what it said."""
        self.begin(command)
        code, text = self.outcome()
        if code != status:
            raise Failure(f"{command!r} ended with {code}, not {status}; it said:\n{text}")
        return text

    def switched_off(self):
        """Waits until the machine has switched itself off."""
        try:
            code = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure(f"the machine is still on; the console shows:\n{self.text[self.seen:]}") from None
        if code != 0:
            raise Failure(f"QEMU ended with {code}; the console shows:\n{self.text[self.seen:]}")
