//! The peer most people would take: tokio's multi-threaded runtime, a task per connection.
//!
//! `peer-tokio SERVICE PORT WORKERS` with the services `echo`, `kv` (one map behind a lock, the protocol of
//! lastorders' `kv`) and `time` (over UDP, a task per worker on one socket). Each is what a careful user would write,
//! without tricks.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use lastorders_benches::peer::{Options, time_reply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

type Store = Arc<RwLock<HashMap<String, String>>>;

fn main() -> io::Result<()> {
    let options = Options::from_args()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.workers).enable_io().build()?;
    runtime.block_on(async {
        match options.service.as_str() {
            "echo" => accept(&options, echo).await,
            "kv" => {
                let store = Store::default();
                accept(&options, move |socket| kv(socket, store.clone())).await
            }
            "time" => time(&options).await,
            other => Err(io::Error::other(format!("unknown service {other:?}"))),
        }
    })
}

async fn accept<F>(options: &Options, serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(options.address()).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(serve(socket));
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            count => socket.write_all(&buffer[..count]).await?,
        }
    }
}

async fn kv(socket: TcpStream, store: Store) -> io::Result<()> {
    let (reader, mut writer) = socket.into_split();
    let mut reader = BufReader::new(reader);
    let (mut line, mut reply) = (String::new(), String::new());
    writer.write_all(b"READY\n").await?;
    while reader.read_line(&mut line).await? > 0 {
        answer(&line, &store, &mut reply);
        line.clear();
        // Pipelined requests are answered together.
        if !reader.buffer().contains(&b'\n') {
            writer.write_all(reply.as_bytes()).await?;
            reply.clear();
        }
    }
    Ok(())
}

fn answer(line: &str, store: &Store, reply: &mut String) {
    let mut words = line.trim().splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some(key), None) => {
            let entries = store.read().unwrap_or_else(PoisonError::into_inner);
            reply.push_str(entries.get(key).map_or("NOT_FOUND", String::as_str));
        }
        (Some("SET"), Some(key), Some(value)) => {
            store.write().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value.into());
            reply.push_str("OK");
        }
        _ => reply.push_str("ERROR: unknown command"),
    }
    reply.push('\n');
}

async fn time(options: &Options) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(options.address()).await?);
    for _ in 1..options.workers {
        tokio::spawn(tell(socket.clone()));
    }
    tell(socket).await
}

async fn tell(socket: Arc<UdpSocket>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let (count, peer) = socket.recv_from(&mut buffer).await?;
        socket.send_to(time_reply(&buffer[..count]).as_bytes(), peer).await?;
    }
}
