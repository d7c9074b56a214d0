//! The textbook peer: `threadpool` and std, a worker per connection until it closes.
//!
//! `peer-pool echo PORT WORKERS`.

use std::io;
use std::net::TcpListener;

use lastorders_benches::peer::{Options, echo};
use threadpool::ThreadPool;

fn main() -> io::Result<()> {
    let options = Options::from_args()?;
    let pool = ThreadPool::new(options.workers);
    let listener = TcpListener::bind(options.address())?;
    loop {
        let (socket, _) = listener.accept()?;
        pool.execute(|| echo(socket));
    }
}
