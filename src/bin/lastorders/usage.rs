//! What `--help` prints, but for the table of `serve`'s options.

pub const USAGE: &str = "\
Usage: lastorders serve [OPTION]...
       lastorders client ADDR [--message TEXT] [--every SECONDS] [--count N]
       lastorders control [--socket PATH] status [--json | --metrics]
       lastorders control [--socket PATH] stop [--grace SECONDS]
       lastorders send GROUP:PORT MESSAGE [--ttl N] [--interface IF]
       lastorders --help | --version

A fixed thread-pool server that tells its clients when it closes.
`lastorders serve --help` lists the server's options.
";

pub const CLIENT_USAGE: &str = "\
Usage: lastorders client ADDR [--message TEXT] [--every SECONDS] [--count N]

Sends a message every second and logs what comes back, until the server says SHUTDOWN.

  --message TEXT       what to send [hello world]
  --every SECONDS      time between messages [1]
  --count N            stop after that many messages [never]

Exit codes: 0 told SHUTDOWN, or all messages sent; 1 connection failed or lost; 2 usage.
";

pub const CONTROL_USAGE: &str = "\
Usage: lastorders control [--socket PATH] status [--json | --metrics]
       lastorders control [--socket PATH] stop [--grace SECONDS]

Asks a running server, started with `lastorders serve --control PATH`.

  --socket PATH        its control socket [$LASTORDERS_CONTROL, or /run/lastorders.sock]
  status               print its counters, a line each
    --json             as one JSON object
    --metrics          in the Prometheus text format
  stop                 shut it down: notice, grace, close
    --grace SECONDS    with another grace time than it was started with

Exit codes: 0 answered, 1 no server there or request refused, 2 usage.
";
