//! A server that plugins are granted, and that sends them where they may not go, or more than they can take.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// Starts it, for as long as the process lives, and gives its port. It serves one client at a time.
pub(super) fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that has had enough hangs up.
            let _ = serve(&stream.unwrap(), port);
        }
    });
    port
}

fn serve(mut stream: &TcpStream, port: u16) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let away = |to: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    };
    let answer = match first.split(' ').nth(1) {
        Some("/to-metadata") => away("http://169.254.169.254/latest/meta-data/"),
        Some("/to-number") => away(&format!("http://127.0.0.1:{port}/")),
        Some("/to-decimal") => away(&format!("http://2130706433:{port}/")),
        Some("/headers") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"and-another: of many more\r\n")?;
            }
        }
        Some("/body") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 1 << 10])?;
            }
        }
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nreached".to_owned(),
    };
    stream.write_all(answer.as_bytes())
}
